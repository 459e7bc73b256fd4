"""Plan the crops of slides: each drawn region becomes a row of the manifest or a failure."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cohort.slides_table import SlideEntry, region_file_of
from glomerulab.errors import GlomerulabError, RegionError, TaxonomyError
from glomerulab.geometry import Box, Point, Region
from glomerulab.runtime.names import safe_name
from glomerulab.slides.cutting import CropTask, current_slide
from glomerulab.slides.regions.files import InvalidRegion, read_regions
from glomerulab.slides.scale import ScaleWarning, region_size_warning
from glomerulab.slides.slide import Slide
from glomerulab.taxonomy import Taxonomy

__all__ = ["CropSettings", "crop_image_id"]

CROPS_FOLDER = "crops"
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
    ignore_bounds: bool = False
    """GeoJSON coordinates start at the slide's corner, not at its bounds as QuPath's do."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0.01 <= self.mpp <= 100:
            raise ValueError(f"mpp must be from 0.01 to 100, got {self.mpp}")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"margin must be from 0 to 10, got {self.margin}")
        if self.image_format not in SUFFIXES:
            raise ValueError(f"image_format must be png or jpeg, got {self.image_format!r}")


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
    ) -> None:
        check_regions(regions_path, n_slides=len(entries))
        self.out = out
        self.crops: list[PlannedCrop] = []
        self.failures: list[Failure] = []
        self.regions: dict[str, list[Region]] = {}
        self.unknown_classes: Counter[str] = Counter()
        self.enlarged_slides: list[str] = []
        self.other_slides: set[str] = set()
        self.slides_without_regions: list[str] = []
        self.scale_warnings: dict[str, list[ScaleWarning]] = {}
        self._slide_ids = frozenset(entry.slide_id for entry in entries)
        self._regions_path = regions_path
        self._settings = settings
        self._taxonomy = taxonomy
        self._parsed: tuple[Path, Point, list[Region], list[InvalidRegion]] | None = None
        self._image_ids: set[str] = set()

    def shared_settings(self) -> dict[str, object]:
        """Return what all crops of a folder share; the rest is in the fingerprint of each slide."""
        return {
            "mpp": self._settings.mpp,
            "margin": self._settings.margin,
            "image_format": self._settings.image_format,
            "labels": list(self._taxonomy.label_ids),
        }

    def add(self, entry: SlideEntry) -> str | None:
        """Plan one slide; return its fingerprint, or None if it failed as a whole."""
        override = self._settings.mpp_override or entry.mpp
        try:
            slide = current_slide(entry.path, mpp_override=override)
            regions = self._regions_of(entry, slide)
            if slide.mpp > self._settings.mpp * COARSER:
                self.enlarged_slides.append(entry.slide_id)
            fingerprint = _fingerprint(slide, regions)
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

    def _regions_of(self, entry: SlideEntry, slide: Slide) -> list[Region]:
        path = self._regions_path
        if path.is_dir():
            path = region_file_of(entry, path)
        offset = (0.0, 0.0) if self._settings.ignore_bounds else slide.bounds_offset
        if self._parsed is None or self._parsed[:2] != (path, offset):
            invalid: list[InvalidRegion] = []
            found = read_regions(path, bounds_offset=offset, invalid=invalid)
            self._parsed = (path, offset, found, invalid)
        _, _, regions, invalid = self._parsed
        named = {region.slide_id for region in regions if region.slide_id is not None}
        self.other_slides |= named - self._slide_ids
        own = {None, entry.slide_id}
        mine = [region for region in regions if region.slide_id in own]
        lost = [one for one in invalid if one.slide_id in own]
        self.failures += [Failure(entry.slide_id, one.region_id, one.reason) for one in lost]
        if not mine and not lost:
            self.slides_without_regions.append(entry.slide_id)
            raise RegionError(
                f"the region file has no region for slide {entry.slide_id!r}", where=str(path)
            )
        return mine

    def _crop(
        self, entry: SlideEntry, slide: Slide, region: Region, override: float | None
    ) -> PlannedCrop:
        settings = self._settings
        if slide.padded_share(region.box()) == 1.0:
            width, height = slide.dimensions
            raise RegionError(
                f"the region lies outside the slide ({width} x {height}); is the region file of "
                "another slide?"
            )
        box = region.box().grown(settings.margin)
        image_id = crop_image_id(entry.slide_id, region.region_id)
        if image_id in self._image_ids:
            raise RegionError(
                f"the image id {image_id!r} is already taken by another region; rename the region"
            )
        labels = self._labels(region)
        self._image_ids.add(image_id)
        relative = Path(
            CROPS_FOLDER, safe_name(entry.slide_id), image_id + SUFFIXES[settings.image_format]
        )
        row = crop_row(entry, slide, box, image_id=image_id, path=relative, mpp=settings.mpp) | {
            **labels,
            "region_id": region.region_id,
            "padded_share": round(slide.padded_share(box), 6),
        }
        task = CropTask(entry.path, override, box, settings.mpp, self.out / relative)
        return PlannedCrop(task, region.region_id, row)

    def _labels(self, region: Region) -> dict[str, int | None]:
        """Return the labels of a region's classes; all None if the taxonomy knows none of them."""
        known: set[str] = set()
        for name in region.labels:
            try:
                known.add(self._taxonomy.find(name).id)
            except TaxonomyError:
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
    """Return the image id of a region's crop, a valid file name on every system."""
    return safe_name(f"{slide_id}__{region_id}")


def check_regions(path: Path, *, n_slides: int) -> None:
    """Check that the region file or folder exists and that each region belongs to one slide."""
    if not path.exists():
        raise RegionError("there is no such region file or folder", where=str(path))
    if n_slides <= 1 or not path.is_file():
        return
    invalid: list[InvalidRegion] = []
    regions: list[Region | InvalidRegion] = [*read_regions(path, invalid=invalid)]
    for region in (*regions, *invalid):
        if region.slide_id is None:
            raise RegionError(
                f"region {region.region_id!r} does not name the slide it lies on, and "
                f"{n_slides} slides were given; give a folder with one file per slide",
                where=str(path),
            )


def _fingerprint(slide: Slide, regions: Sequence[Region]) -> str:
    """Return a hash that changes with the slide or its regions."""
    own = slide.properties.get("openslide.quickhash-1", "")
    size = 0
    if slide.path.is_file():
        size = slide.path.stat().st_size
        if not own:  # a plain image: another one may have the same size
            with slide.path.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
    text = repr((own, size, slide.dimensions, slide.mpp_xy, list(regions)))
    return hashlib.sha256(text.encode()).hexdigest()
