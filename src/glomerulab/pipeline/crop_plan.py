"""Plan the crops of slides: each drawn region becomes a row of the manifest or a failure."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glomerulab.cohort.slides_table import SlideEntry, region_file_of
from glomerulab.errors import ConfigError, GlomerulabError, RegionError, TaxonomyError
from glomerulab.geometry import Box, Region
from glomerulab.pipeline.region_checks import (
    glass_note,
    listed,
    region_width,
    regions_on_glass,
    size_notes,
)
from glomerulab.runtime.files import existing_path
from glomerulab.runtime.names import hashed_name, safe_name
from glomerulab.slides.cutting import CropTask, close_current_slide, current_slide
from glomerulab.slides.regions.features import (
    DEFAULT_OPTIONS,
    RegionFile,
    RegionNote,
    RegionOptions,
    SlideFrame,
    class_key,
)
from glomerulab.slides.regions.files import InvalidRegion, read_region_file
from glomerulab.slides.regions.parsing import split_labels
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL, is_proposal
from glomerulab.slides.regions.selection import (
    class_counts,
    class_keys,
    drop_repeats,
    left_out_notes,
    on_slide,
    select_regions,
    unmatched_notes,
)
from glomerulab.slides.scale import ScaleWarning, region_size_warning
from glomerulab.slides.slide import Slide
from glomerulab.taxonomy import Taxonomy

__all__ = ["COARSER", "CropSettings", "crop_image_id"]

CROPS_FOLDER = "crops"
MASKS_FOLDER = "masks"
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
COARSER = 1.001
"""A slide is coarser than wanted if its mpp exceeds the wanted one by this factor."""


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How crops are cut; all crops of a folder share the settings."""

    mpp: float = 0.5
    """Micrometres per pixel of the crops, from 0.01 to 100."""
    margin: float = 0.1
    """Added on every side, as a share of the region's longer side, from 0 to 10."""
    image_format: str = "png"
    """``png`` or ``jpeg``."""
    mpp_override: float | None = None
    """Micrometres per pixel of level 0 of every slide, in place of the files' metadata."""
    region_options: RegionOptions = DEFAULT_OPTIONS
    """Which drawn objects are regions, and where their coordinates begin."""
    labels_matter: bool = True
    """Whether two classes of one glomerulus are a contradiction."""
    has_masks: bool = False
    """Whether a mask of its region is written for each crop."""
    may_be_empty: bool = False
    """Whether a slide without regions is no failure."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0.01 <= self.mpp <= 100:
            raise ValueError(f"mpp must be from 0.01 to 100, got {self.mpp}")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"margin must be from 0 to 10, got {self.margin}")
        if self.image_format not in SUFFIXES:
            raise ValueError(f"image_format must be png or jpeg, got {self.image_format!r}")

    def shared(self, taxonomy: Taxonomy) -> dict[str, object]:
        """Return what all crops of a folder share; the rest is in the fingerprint of each slide."""
        return {
            "mpp": self.mpp,
            "margin": self.margin,
            "image_format": self.image_format,
            "labels": list(taxonomy.label_ids),
            "regions": self.region_options.record(),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A slide or region that could not be processed."""

    slide: str
    """Slide id."""
    region: str
    """Region id; empty if the whole slide failed."""
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedCrop:
    """A crop to cut, and its row in the manifest."""

    task: CropTask
    region_id: str
    row: dict[str, object]


class CropPlan:
    """The crops of a cohort, planned slide by slide: each region becomes a row or a failure."""

    def __init__(
        self,
        entries: Sequence[SlideEntry],
        regions_path: Path,
        *,
        out: Path,
        settings: CropSettings,
        taxonomy: Taxonomy,
        n_slides: int,
    ) -> None:
        regions_path = existing_path(regions_path)
        check_regions(regions_path, n_slides=n_slides)
        _check_labels(settings.region_options, taxonomy)
        self._n_slides = n_slides
        self.out = out
        self.crops: list[PlannedCrop] = []
        self.failures: list[Failure] = []
        self.regions: dict[str, list[Region]] = {}
        self.unknown_classes: Counter[str] = Counter()
        self.left_out: dict[str, Counter[str]] = {}
        """By slide id."""
        self.notes: list[tuple[str, RegionNote]] = []
        """On the regions of a slide; of all of them where its id is empty."""
        self.widths: dict[tuple[str, str], float] = {}
        """Of the regions in micrometres, by slide id and region id."""
        self.classes: Counter[str] = Counter()
        self._reported: set[str] = set()
        self.enlarged_slides: list[str] = []
        self.other_slides: set[str] = set()
        self.slides_without_regions: list[str] = []
        self.scale_warnings: dict[str, list[ScaleWarning]] = {}
        self._slide_names = tuple(
            name for entry in entries for name in (entry.slide_id, *entry.other_names)
        )
        self._regions_path = regions_path
        self._settings = settings
        self._taxonomy = taxonomy
        self._file: RegionFile | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leave out the region file, which may be large, between processes."""
        return vars(self) | {"_file": None}

    def add(self, entry: SlideEntry) -> str | None:
        """Plan one slide; return its fingerprint, or None if it failed as a whole."""
        override = self._settings.mpp_override or entry.mpp
        try:
            slide = current_slide(entry.path, mpp_override=override)
            regions = self._regions_of(entry, slide, override)
            if slide.mpp > self._settings.mpp * COARSER:
                self.enlarged_slides.append(entry.slide_id)
            fingerprint = _fingerprint(slide, entry.slide_id, regions)
        except GlomerulabError as error:
            self.failures.append(Failure(entry.slide_id, "", str(error)))
            return None
        self.regions[entry.slide_id] = regions
        sizes = region_size_warning(entry.slide_id, regions, slide.mpp_xy)
        self.scale_warnings[entry.slide_id] = [
            *slide.scale_warnings,
            *([] if sizes is None else [sizes]),
        ]
        for region in regions:
            try:
                self.crops.append(self._crop(entry, slide, region, override))
            except GlomerulabError as error:
                self.failures.append(Failure(entry.slide_id, region.region_id, error.message))
        return fingerprint

    def absorb(self, other: "CropPlan") -> None:
        """Take over what `plan_slide` planned in another process, as if `add` had done it here."""
        self.crops += other.crops
        self.failures += other.failures
        self.regions |= other.regions
        self.unknown_classes += other.unknown_classes
        self.left_out |= other.left_out
        self.notes += other.notes
        self.widths |= other.widths
        self.classes += other.classes
        self.enlarged_slides += other.enlarged_slides
        self.other_slides |= other.other_slides.difference(self._slide_names)
        self.slides_without_regions += other.slides_without_regions
        self.scale_warnings |= other.scale_warnings

    def finish(self, *, is_part: bool = False) -> None:
        """Compare the regions of all slides; call it when all are added.

        Raises
        ------
        RegionError
            If classes were asked for and no region file has any of them; of a part of a cohort
            that is no error.
        """
        for slide_id, note in size_notes(self.widths).items():
            self.notes.append((slide_id, note))
        unmatched = unmatched_notes(self.classes, self._settings.region_options)
        self.notes[:0] = [("", note) for note in unmatched]
        wanted = self._settings.region_options.labels_by_class()
        if is_part or not wanted or not self.classes or self.crops:
            return
        present = {key for name in self.classes for key in class_keys(name)}
        if not present & wanted.keys():
            raise RegionError(
                "no region has a class that --class names; the classes are: "
                f"{class_counts(self.classes)}",
                where=str(self._regions_path),
            )

    def _regions_of(self, entry: SlideEntry, slide: Slide, override: float | None) -> list[Region]:
        options, file = self._settings.region_options, self._region_file(entry)
        path, features = file.path, file.features
        known = {one.place for one in on_slide(features, self._slide_names)}
        others = {one.slide_id for one in features if one.slide_id and one.place not in known}
        self.other_slides |= others
        frame = SlideFrame.of(slide, options)
        if override is not None:
            frame = replace(frame, mpp_xy=slide.mpp_xy)
        found = select_regions(
            features, frame, options, slide_id=entry.slide_id, slide_names=entry.other_names
        )
        drop_repeats(found, frame, labels_matter=self._settings.labels_matter)
        self.classes += found.classes
        self.notes += [(entry.slide_id, note) for note in found.notes]
        if found.left_out:
            self.left_out[entry.slide_id] = found.left_out
        failures: list[tuple[Region | InvalidRegion, str]] = [
            (one, f"{path.name}, {one.reason}") for one in found.invalid
        ]
        mine = found.regions
        if self._n_slides > 1 and self._regions_path.is_file():
            failures += [
                (one, f"{path.name}, region {one.region_id!r}: it does not name its slide")
                for one in mine
                if one.slide_id is None
            ]
            mine = [one for one in mine if one.slide_id is not None]
        for one, reason in failures:
            # What names no slide is found again for every slide of the file.
            if one.slide_id is None and reason in self._reported and self._n_slides > 1:
                continue
            self._reported.add(reason)
            self.failures.append(Failure(entry.slide_id, one.region_id, reason))
        if not mine and not found.invalid:
            self.slides_without_regions.append(entry.slide_id)
            if not self._settings.may_be_empty:
                raise _no_region(entry, path, others, found.left_out)
        drawn = [region for region in mine if not is_proposal(region)]
        if on_glass := regions_on_glass(slide, drawn, options):
            self.notes.append((entry.slide_id, glass_note(entry.slide_id, on_glass)))
        return mine

    def _region_file(self, entry: SlideEntry) -> RegionFile:
        path = self._regions_path
        if path.is_dir():
            path = region_file_of(entry, path)
        if self._file is None or self._file.path != path:
            self._file = read_region_file(path)
            self.notes += [(entry.slide_id, note) for note in self._file.notes]
        return self._file

    def _crop(
        self, entry: SlideEntry, slide: Slide, region: Region, override: float | None
    ) -> PlannedCrop:
        settings = self._settings
        if slide.padded_share(region.box()) == 1.0:
            width, height = slide.dimensions
            raise RegionError(
                f"the region lies outside the slide ({width} x {height}); give the region file of "
                "this slide if it is that of another slide, or --drawn-mpp if it was drawn on an "
                "image of another scale"
            )
        self.widths[entry.slide_id, region.region_id] = region_width(region.box(), slide.mpp_xy)
        box = region.box().grown(settings.margin)
        labels = self._labels(region)
        image_id = crop_image_id(entry.slide_id, region.region_id)
        relative = Path(
            CROPS_FOLDER, safe_name(entry.slide_id), image_id + SUFFIXES[settings.image_format]
        )
        row = crop_row(entry, slide, box, image_id=image_id, path=relative, mpp=settings.mpp) | {
            **labels,
            "region_id": region.region_id,
            "padded_share": round(slide.padded_share(box), 6),
        }
        task = CropTask(entry.path, override, box, settings.mpp, self.out / relative)
        if settings.has_masks:
            mask_path = self.out / MASKS_FOLDER / f"{image_id}.png"
            rings = (region.polygon, *region.holes)
            task = replace(task, mask_path=mask_path, rings=rings)
        return PlannedCrop(task, region.region_id, row)

    def _labels(self, region: Region) -> dict[str, int | None]:
        """Return the labels of a region's classes; all None if the taxonomy knows none of them."""
        known: set[str] = set()
        chosen = self._settings.region_options.labels_by_class()  # without a label on purpose
        for name in region.labels:
            try:
                known.add(self._taxonomy.find(name).id)
            except TaxonomyError:
                if name != PROPOSAL_LABEL and class_key(name) not in chosen:
                    self.unknown_classes[name] += 1
        if not known:
            return dict.fromkeys(self._taxonomy.label_ids)
        flags: dict[str, int | None] = {
            label_id: int(label_id in known) for label_id in self._taxonomy.label_ids
        }
        for first, second in self._taxonomy.conflicts(flags):
            raise RegionError(
                f"the region is classified both {first} and {second}, which exclude each other; "
                "keep one class"
            )
        return flags


def _no_region(
    entry: SlideEntry, path: Path, others: Collection[str], left_out: Counter[str]
) -> RegionError:
    left = "".join(f" ({note.en})" for note in left_out_notes(left_out))
    named = (
        f"; it names {listed(sorted(others))}: if that is this slide, give both one name"
        if others
        else ""
    )
    return RegionError(
        f"the region file has no region for slide {entry.slide_id!r}{named}{left}",
        where=str(path),
    )


def plan_slide(
    entry: SlideEntry,
    *,
    regions_path: Path,
    out: Path,
    settings: CropSettings,
    taxonomy: Taxonomy,
    n_slides: int,
) -> tuple[CropPlan, str | None]:
    """Plan one of several slides, whose regions are in a folder, in a worker process.

    Returns
    -------
    plan : CropPlan
        For `CropPlan.absorb`.
    fingerprint : str or None
        None if the slide failed as a whole.
    """
    plan = CropPlan(
        [entry], regions_path, out=out, settings=settings, taxonomy=taxonomy, n_slides=n_slides
    )
    try:
        fingerprint = plan.add(entry)
    finally:
        close_current_slide()
    return plan, fingerprint


def crop_row(
    entry: SlideEntry, slide: Slide, box: Box, *, image_id: str, path: Path, mpp: float
) -> dict[str, object]:
    """Return a crop's row in a manifest, without labels; `path` is relative to the manifest."""
    return {
        **dict(entry.further),  # first, so that it does not replace the columns below
        "image_id": image_id,
        "image_path": path.as_posix(),
        "patient_id": entry.patient_id,
        "slide_id": entry.slide_id,
        "stain": entry.stain or slide.stain,
        "mpp": mpp,
        "x": box.x,
        "y": box.y,
        "width": box.width,
        "height": box.height,
        "slide_mpp_x": slide.mpp_xy[0],
        "slide_mpp_y": slide.mpp_xy[1],
    }


def crop_image_id(slide_id: str, region_id: str) -> str:
    """Return the image id of a region's crop, a valid file name on every system.

    No region of another slide has it: a part of a cohort is cut without the others.
    """
    image_id = safe_name(f"{slide_id}__{region_id}")
    if "__" not in f"_{region_id}":  # the last one parts slide and region
        return image_id
    return f"{image_id}-{hashed_name(repr((slide_id, region_id)))}"


def check_regions(path: Path, *, n_slides: int) -> None:
    """Check that the region file or folder exists and that each region belongs to one slide."""
    if not path.exists():
        raise RegionError(
            "there is no such region file or folder; check the path of --regions", where=str(path)
        )
    if n_slides <= 1 or not path.is_file():
        return
    drawn = [one for one in read_region_file(path).features if not one.failure and not one.skipped]
    if drawn and all(one.slide_id is None for one in drawn):
        first = drawn[0]
        raise RegionError(
            f"{first.place} does not name the slide it lies on, and {n_slides} slides were given; "
            "give a folder with one file per slide",
            where=str(path),
        )


def _check_labels(options: RegionOptions, taxonomy: Taxonomy) -> None:
    """Refuse a label of an option that the taxonomy lacks."""
    for name, label in options.labels_by_class().items():
        for one in split_labels(label):
            try:
                taxonomy.find(one)
            except TaxonomyError as error:
                raise ConfigError(f"--class {name}={label}: {error.message}") from error


def _fingerprint(slide: Slide, slide_id: str, regions: Sequence[Region]) -> str:
    """Return a hash that changes with the slide, its regions or the rule that names their crops."""
    own = slide.properties.get("openslide.quickhash-1", "")
    size = 0
    if slide.path.is_file():
        size = slide.path.stat().st_size
        if not own:  # a plain image: another one may have the same size
            with slide.path.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
    parts: list[object] = [own, size, slide.dimensions, slide.mpp_xy, list(regions)]
    for one in regions:
        image_id = crop_image_id(slide_id, one.region_id)
        if image_id != safe_name(f"{slide_id}__{one.region_id}"):  # the rule of earlier versions
            parts.append(image_id)
    return hashlib.sha256(repr(tuple(parts)).encode()).hexdigest()
