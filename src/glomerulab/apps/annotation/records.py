"""The records of the annotation program, independent of the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from glomerulab.errors import AnnotationError
from glomerulab.geometry import Box, Point, Region
from glomerulab.taxonomy import Taxonomy

Role = Literal["annotator", "adjudicator", "owner"]
"""An adjudicator settles disagreements and has no queue of images to label."""
State = Literal["open", "done", "skipped"]
Source = Literal["web", "import"]
Purpose = Literal["first", "repeat", "third"]
"""A first reading, a repeat by the same annotator, or a third reading after a disagreement."""
AdjudicationMethod = Literal["majority", "third_reader", "consensus", "excluded"]
"""``excluded``: nobody can label the image, and all its labels stay unknown."""

Labels = Mapping[str, int | None]
"""Label id to 1, 0, or None for unknown."""


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may log in."""

    account_id: int
    login: str
    name: str
    role: Role
    active: bool


@dataclass(frozen=True, slots=True)
class StudySettings:
    """The design of a study; a change applies to what is distributed afterwards."""

    name: str
    n_readers: int = 2
    """Annotators per image, at least 1."""
    repeat_share: float = 0.1
    """Share of an annotator's images that come twice, from 0 to 0.5."""
    seed: int = 0
    show_model: bool = False
    """Whether annotators see the model's probabilities."""
    show_others: bool = False
    """Whether annotators see each other's labels."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.name.strip():
            raise AnnotationError("the study needs a name")
        if self.n_readers < 1:
            raise AnnotationError(f"readers per image must be at least 1, got {self.n_readers}")
        if not 0.0 <= self.repeat_share <= 0.5:
            raise AnnotationError(
                f"the share of repeated images must be from 0 to 0.5, got {self.repeat_share}"
            )


@dataclass(frozen=True, slots=True)
class Study:
    """A study with its present settings."""

    settings: StudySettings
    taxonomy: Taxonomy
    image_root: Path
    """The folder that relative image paths start from."""
    version: int
    """Counts the changes of the settings, from 1."""


@dataclass(frozen=True, slots=True)
class ImageOrigin:
    """The fields of an image that come from its manifest, as far as they are known."""

    image_id: str
    image_path: str | Path
    patient_id: str | None = None
    slide_id: str | None = None
    stain: str | None = None
    mpp: float | None = None
    """Micrometres per pixel."""
    box: Box | None = None
    """Its position on the slide, level-0 pixels."""
    region_id: str | None = None
    """The drawn region it was cut from."""


@dataclass(frozen=True, slots=True)
class Image(ImageOrigin):
    """One image to label."""

    image_path: Path
    """Absolute."""


@dataclass(frozen=True, slots=True)
class NewImage(ImageOrigin):
    """An image to add to a study."""

    image_path: str
    """Relative to the image root of the study, or absolute."""
    others: Mapping[str, str | int | float] = field(default_factory=dict)
    """Other columns of its manifest, which an export returns."""


@dataclass(frozen=True, slots=True)
class AnnotationContent:
    """The part of an annotation that the annotator enters."""

    labels: Labels = field(default_factory=dict)
    """An absent label is unknown, like None."""
    unsure: bool = False
    skip_reason: str | None = None
    """Why the image cannot be labelled; then there are no labels."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One saved annotation; a change of it is a further version, not a replacement."""

    sequence: int
    """Number of its entry in the ledger."""
    assignment_id: int
    image_id: str
    login: str
    purpose: Purpose
    version: int
    """1 for the first save of the item."""
    content: AnnotationContent
    """With every label of the taxonomy."""
    seconds: float
    """Time spent on this version."""
    saved_at: datetime
    """UTC."""
    image_sha256: str | None
    """Digest of the file that was shown."""
    model_shown: bool
    others_shown: bool
    source: Source


@dataclass(frozen=True, slots=True)
class QueueItem:
    """An item of an annotator's queue, restricted to what this annotator may see."""

    assignment_id: int
    image: Image
    position: int
    """From 1."""
    n_items: int
    version: int
    """Of the annotator's latest annotation; 0 if there is none."""
    annotation: Annotation | None
    model: Mapping[str, float] | None
    """Label id to probability; None unless the study shows it and there is one."""
    others: tuple[Annotation, ...]
    """Empty unless the study shows them."""


@dataclass(frozen=True, slots=True)
class ItemState:
    """One line of an annotator's list of items."""

    assignment_id: int
    position: int
    image_id: str
    state: State


@dataclass(frozen=True, slots=True)
class SaveResult:
    """The result of saving an annotation."""

    annotation: Annotation
    already_saved: bool
    """Whether an earlier try of the same save had arrived."""


@dataclass(frozen=True, slots=True)
class AnnotatorProgress:
    """The progress of one annotator."""

    login: str
    name: str
    n_assigned: int
    n_done: int
    n_skipped: int
    n_unsure: int
    seconds_total: float
    """Over all saves."""
    seconds_median: float | None
    """Per item; None before the first."""
    last_saved_at: datetime | None

    @property
    def n_open(self) -> int:
        """Items neither labelled nor skipped."""
        return self.n_assigned - self.n_done - self.n_skipped


@dataclass(frozen=True, slots=True)
class Distribution:
    """The counts of one distribution of images to annotators."""

    n_images: int
    """Images that got readers."""
    n_assignments: int
    n_repeats: int
    """Assignments that repeat an image."""


@dataclass(frozen=True, slots=True)
class DrawnRegion:
    """The latest version of a region drawn on a slide."""

    region_id: str
    slide_id: str
    box: Box
    """Level-0 pixels."""
    outline: tuple[Point, ...]
    """The corners of the box unless it was drawn or imported with another shape."""
    labels: tuple[str, ...]
    login: str
    """Who drew it first."""
    version: int
    deleted: bool
    saved_at: datetime
    holes: tuple[tuple[Point, ...], ...] = ()
    """Rings that are cut out."""

    @property
    def name_on_slide(self) -> str:
        """The id without the prefix that names its slide."""
        return self.region_id.removeprefix(f"{self.slide_id}:")

    def region(self, region_id: str | None = None) -> Region:
        """Return the outline with its holes and labels, under another id if one is given."""
        return Region(
            region_id or self.region_id, self.outline, self.labels, self.slide_id, self.holes
        )


@dataclass(frozen=True, slots=True)
class RegionSaveResult:
    """The result of saving a region."""

    region: DrawnRegion
    already_saved: bool


@dataclass(frozen=True, slots=True)
class Adjudication:
    """The adjudicated labels of an image."""

    sequence: int
    image_id: str
    version: int
    labels: Labels
    method: AdjudicationMethod
    login: str
    """The owner or adjudicator who adjudicated."""
    note: str
    readings: tuple[int, ...]
    """Sequences of the annotations it rests on."""
    saved_at: datetime


@dataclass(frozen=True, slots=True)
class ImageReadings:
    """An image with its readings and its adjudication."""

    image: Image
    image_path: str
    """As in the manifest."""
    others: Mapping[str, str | int | float]
    """Other columns of the manifest."""
    readings: tuple[Annotation, ...]
    """Latest annotation of each reader who did not skip the image, without repeats."""
    adjudication: Adjudication | None
    """The latest."""
    skips: tuple[Annotation, ...] = ()
    """Latest annotation of each reader who skipped the image."""
    waiting: tuple[str, ...] = ()
    """Logins of the readers who have it in their queue and have not read it."""

    @property
    def stale(self) -> bool:
        """Whether a reading was changed or added after the adjudication."""
        if self.adjudication is None:
            return False
        return {reading.sequence for reading in self.readings} != set(self.adjudication.readings)


@dataclass(frozen=True, slots=True)
class AdjudicationSummary:
    """The result of adjudicating many images by a rule."""

    n_resolved: int
    unresolved: tuple[str, ...]
    """Ids of the images that the rule could not decide."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An image on which its readers disagree."""

    image: Image
    readings: tuple[Annotation, ...]
    labels: tuple[str, ...]
    """Ids of the labels they disagree on."""
    adjudication: Adjudication | None
    stale: bool
    """Whether a reading changed after the adjudication."""


class SaveConflictError(AnnotationError):
    """The record was changed since the client read it; nothing was written."""

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        current: Annotation | DrawnRegion | Adjudication | None = None,
    ) -> None:
        super().__init__(message, where=where)
        self.current = current
        """The saved record; None if there is none."""
