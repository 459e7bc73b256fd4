"""The values that the annotation program is about; nothing here touches a database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from glomerulab.errors import AnnotationError
from glomerulab.geometry import Box, Point
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "Account",
    "Adjudication",
    "AdjudicationMethod",
    "AdjudicationSummary",
    "Annotation",
    "Disagreement",
    "Distribution",
    "DrawnRegion",
    "Image",
    "ItemState",
    "Judgement",
    "Labels",
    "Outcome",
    "Progress",
    "Purpose",
    "QueueItem",
    "Role",
    "SaveConflictError",
    "Saved",
    "SavedRegion",
    "Source",
    "State",
    "Study",
    "StudySettings",
]

Role = Literal["annotator", "owner"]
State = Literal["open", "done", "skipped"]
Source = Literal["web", "import"]
Purpose = Literal["first", "repeat", "third"]
"""Why an image is in a queue: to be read, to be read again by the same person, or to settle."""
AdjudicationMethod = Literal["majority", "third_reader", "consensus"]

Labels = Mapping[str, int | None]
"""Label id to 1, 0, or None for unknown."""


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who may log in."""

    account_id: int
    login: str
    name: str
    role: Role
    active: bool


@dataclass(frozen=True, slots=True)
class StudySettings:
    """How a study is run; the design part holds for what is distributed after a change."""

    name: str
    n_readers: int = 2
    """How many annotators read each image, at least 1."""
    repeat_share: float = 0.1
    """Share of an annotator's images that come twice, from 0 to 0.5."""
    seed: int = 0
    show_model: bool = False
    """Whether annotators see the model's probabilities."""
    show_others: bool = False
    """Whether annotators see each other's labels."""

    def __post_init__(self) -> None:
        """Refuse a design that cannot be."""
        if not self.name.strip():
            raise AnnotationError("a study needs a name")
        if self.n_readers < 1:
            raise AnnotationError(f"readers per image must be at least 1, got {self.n_readers}")
        if not 0.0 <= self.repeat_share <= 0.5:
            raise AnnotationError(
                f"the repeated share must be from 0 to 0.5, got {self.repeat_share}"
            )


@dataclass(frozen=True, slots=True)
class Study:
    """A study as it stands."""

    settings: StudySettings
    taxonomy: Taxonomy
    image_root: Path
    """What relative image paths start from."""
    version: int
    """Counts the changes of the settings, from 1."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image to label, and what is known of where it comes from."""

    image_id: str
    image_path: Path
    """Absolute."""
    patient_id: str | None = None
    slide_id: str | None = None
    stain: str | None = None
    mpp: float | None = None
    """Micrometres per pixel."""
    box: Box | None = None
    """Its place on the slide, level-0 pixels."""
    region_id: str | None = None
    """The drawn region it was cut from."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one person says of one image."""

    labels: Labels = field(default_factory=dict)
    """Absent is unknown, as None is."""
    unsure: bool = False
    skip_reason: str | None = None
    """Why the image cannot be judged; then no label is given."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One saved judgement; a later one of the same item does not replace it, but follows it."""

    sequence: int
    """Its place in the ledger of the study."""
    assignment_id: int
    image_id: str
    login: str
    purpose: Purpose
    version: int
    """1 for the first save of the item."""
    judgement: Judgement
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
    """An item of an annotator's queue, with what this annotator may see and nothing else."""

    assignment_id: int
    image: Image
    place: int
    """From 1."""
    n_items: int
    version: int
    """Of the newest own annotation; 0 if there is none."""
    annotation: Annotation | None
    model: Mapping[str, float] | None
    """Label id to probability; None unless the study shows it and there is one."""
    others: tuple[Annotation, ...]
    """Empty unless the study shows them."""


@dataclass(frozen=True, slots=True)
class ItemState:
    """One line of an annotator's list of items."""

    assignment_id: int
    place: int
    image_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a save."""

    annotation: Annotation
    was_there: bool
    """True if this very save had arrived before."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an annotator is."""

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
    """What a distribution of images to annotators did."""

    n_images: int
    """Images that got readers."""
    n_assignments: int
    n_repeats: int
    """Of the assignments, those that repeat an image."""


@dataclass(frozen=True, slots=True)
class DrawnRegion:
    """A region drawn on a slide, in its newest version."""

    region_id: str
    slide_id: str
    box: Box
    """Level-0 pixels."""
    outline: tuple[Point, ...]
    """The corners of the box unless it came from a file with another shape."""
    labels: tuple[str, ...]
    login: str
    """Who drew it first."""
    version: int
    deleted: bool
    saved_at: datetime


@dataclass(frozen=True, slots=True)
class SavedRegion:
    """What became of a save of a region."""

    region: DrawnRegion
    was_there: bool


@dataclass(frozen=True, slots=True)
class Adjudication:
    """What was settled for an image."""

    sequence: int
    image_id: str
    version: int
    labels: Labels
    method: AdjudicationMethod
    login: str
    """Who settled it."""
    note: str
    readings: tuple[int, ...]
    """Sequences of the annotations it rests on."""
    saved_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of an image after its readings."""

    image: Image
    image_path: str
    """As it stands in the manifest."""
    others: Mapping[str, str | int | float]
    """Other columns of the manifest."""
    readings: tuple[Annotation, ...]
    """Newest judgement of each reader who did not skip the image; repeats left out."""
    adjudication: Adjudication | None
    """The newest."""

    @property
    def stale(self) -> bool:
        """Whether a reading was changed or added after the adjudication."""
        if self.adjudication is None:
            return False
        return {reading.sequence for reading in self.readings} != set(self.adjudication.readings)


@dataclass(frozen=True, slots=True)
class AdjudicationSummary:
    """What settling many images at once did."""

    n_settled: int
    left: tuple[str, ...]
    """Ids of the images that could not be settled so."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """An image on which its readers differ."""

    image: Image
    readings: tuple[Annotation, ...]
    labels: tuple[str, ...]
    """Ids of the labels they differ in."""
    adjudication: Adjudication | None
    stale: bool
    """True if a reading changed after the adjudication."""


class SaveConflictError(AnnotationError):
    """What is to be changed was changed by someone since it was read; nothing was written."""

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        current: Annotation | DrawnRegion | Adjudication | None = None,
    ) -> None:
        super().__init__(message, where=where)
        self.current = current
        """What stands there now; None if nothing does."""
