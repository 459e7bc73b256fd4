"""What ``extract`` will cut: every region becomes a row, or a failure with its reason.

Slides are opened for what they say of themselves; no pixel is read here.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glomerulab.cohort.slides_table import SlideEntry, region_file_of
from glomerulab.errors import GlomerulabError, RegionError, TaxonomyError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.cutting import CropTask
from glomerulab.slides.regions.files import InvalidRegion, read_regions
from glomerulab.slides.slide import Slide, open_slide
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "CROPS_FOLDER",
    "CropSettings",
    "Failure",
    "Plan",
    "PlannedCrop",
    "crop_image_id",
    "plan_crops",
    "refuse_nameless",
]

CROPS_FOLDER = "crops"
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How crops are cut; a folder of crops holds those of one setting only."""

    mpp: float = 0.5
    """Micrometres per pixel of the crops."""
    margin: float = 0.1
    """Added on every side, as a share of the region's longer side."""
    image_format: str = "png"
    """``png`` or ``jpeg``."""
    mpp_override: float | None = None
    """Micrometres per pixel of level 0 of every slide, in place of what the files say."""
    ignore_bounds: bool = False
    """Whether GeoJSON counts from the slide's corner and not, as QuPath does, from its bounds."""

    def __post_init__(self) -> None:
        """Refuse numbers that cut nothing."""
        if not 0.01 <= self.mpp <= 100:
            raise ValueError(f"mpp must be from 0.01 to 100, got {self.mpp}")
        if not 0 <= self.margin <= 10:
            raise ValueError(f"margin must be from 0 to 10, got {self.margin}")
        if self.image_format not in SUFFIXES:
            raise ValueError(f"image_format must be png or jpeg, got {self.image_format!r}")


@dataclass(frozen=True, slots=True)
class Failure:
    """What could not be cut, and why."""

    slide: str
    """Slide id."""
    region: str
    """Region id; empty if it is the whole slide."""
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedCrop:
    """One crop to cut, and all of its manifest row but the pixels."""

    task: CropTask
    region_id: str
    row: dict[str, object]


@dataclass
class Plan:
    """What a run is going to do."""

    crops: list[PlannedCrop] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of each slide and its regions, by slide id: tells whether they changed between two runs."""
    unknown_classes: Counter[str] = field(default_factory=Counter)
    """Words of the region files that the taxonomy does not know."""
    enlarged_slides: list[str] = field(default_factory=list)
    """Slides whose own sampling is coarser than the wanted one."""
    other_slides: set[str] = field(default_factory=set)
    """Slides that regions are said to lie on and that are not among those to be cut."""


def plan_crops(
    entries: Sequence[SlideEntry],
    regions_path: Path,
    *,
    out: Path,
    settings: CropSettings,
    taxonomy: Taxonomy,
    track: Track = silent,
) -> Plan:
    """Plan the crops of a cohort.

    Parameters
    ----------
    entries : sequence of SlideEntry
    regions_path : Path
        One region file for all slides, or a folder with one called after each slide.
    out : Path
        Folder the crops go below.
    settings : CropSettings
    taxonomy : Taxonomy
        Its labels are set from the classes of the regions.
    track : Track, default silent

    Returns
    -------
    Plan

    Raises
    ------
    RegionError
        If there is no region file or folder at `regions_path`, or one file for several slides does
        not say which region lies on which.
    """
    if not regions_path.exists():
        raise RegionError("there is no such region file or folder", where=str(regions_path))
    if len(entries) > 1 and regions_path.is_file():
        refuse_nameless(regions_path, len(entries))
    slide_ids = frozenset(entry.slide_id for entry in entries)
    planner = _Planner(regions_path, out, settings, taxonomy, slide_ids)
    for entry in track(entries, "Reading regions"):
        try:
            planner.add(entry)
        except GlomerulabError as error:
            planner.plan.failures.append(Failure(entry.slide_id, "", str(error)))
    return planner.plan


class _Planner:
    """Collects the plan slide by slide; a single region file is parsed once for all slides."""

    def __init__(
        self,
        regions_path: Path,
        out: Path,
        settings: CropSettings,
        taxonomy: Taxonomy,
        slide_ids: frozenset[str],
    ) -> None:
        self.plan = Plan()
        self._slide_ids = slide_ids
        self._regions_path = regions_path
        self._out = out
        self._settings = settings
        self._taxonomy = taxonomy
        self._parsed: tuple[Path, Point, list[Region], list[InvalidRegion]] | None = None
        self._image_ids: set[str] = set()

    def add(self, entry: SlideEntry) -> None:
        """Plan one slide."""
        override = self._settings.mpp_override or entry.mpp
        with open_slide(entry.path, mpp_override=override) as slide:
            regions = self._regions_of(entry, slide)
            if slide.mpp > self._settings.mpp * 1.001:
                self.plan.enlarged_slides.append(entry.slide_id)
            self.plan.fingerprints[entry.slide_id] = _fingerprint(slide, regions)
            for region in regions:
                try:
                    self.plan.crops.append(self._crop(entry, slide, region, override))
                except GlomerulabError as error:
                    self.plan.failures.append(
                        Failure(entry.slide_id, region.region_id, error.message)
                    )

    def _regions_of(self, entry: SlideEntry, slide: Slide) -> list[Region]:
        path = self._regions_path
        if path.is_dir():
            path = region_file_of(entry, path)
        offset = (0.0, 0.0) if self._settings.ignore_bounds else slide.bounds_offset
        if self._parsed is None or self._parsed[:2] != (path, offset):
            invalid: list[InvalidRegion] = []
            found = read_regions(path, bounds_offset=offset, invalid=invalid)
            self._parsed = (path, offset, found, invalid)
        regions = self._parsed[2]
        named = {region.slide_id for region in regions if region.slide_id is not None}
        self.plan.other_slides |= named - self._slide_ids
        mine = [region for region in regions if region.slide_id in {None, entry.slide_id}]
        lost = [one for one in self._parsed[3] if one.slide_id in {None, entry.slide_id}]
        self.plan.failures += [Failure(entry.slide_id, one.region_id, one.reason) for one in lost]
        if not mine and not lost:
            raise RegionError(f"no region for slide {entry.slide_id!r}", where=str(path))
        return mine

    def _crop(
        self, entry: SlideEntry, slide: Slide, region: Region, override: float | None
    ) -> PlannedCrop:
        settings = self._settings
        if slide.padded_share(region.box()) == 1.0:
            width, height = slide.dimensions
            raise RegionError(
                f"lies wholly outside the slide ({width} x {height}); region file of another slide?"
            )
        box = region.box().grown(settings.margin)
        image_id = crop_image_id(entry.slide_id, region.region_id)
        if image_id in self._image_ids:
            raise RegionError(f"its image id {image_id!r} is that of another region; rename it")
        labels = self._labels(region)
        self._image_ids.add(image_id)
        relative = Path(
            CROPS_FOLDER, safe_name(entry.slide_id), image_id + SUFFIXES[settings.image_format]
        )
        row: dict[str, object] = {
            **dict(entry.further),  # first: what extract itself knows stands above it
            "image_id": image_id,
            "image_path": relative.as_posix(),
            "patient_id": entry.patient_id,
            "slide_id": entry.slide_id,
            "stain": entry.stain or slide.stain,
            "mpp": settings.mpp,
            "x": box.x,
            "y": box.y,
            "width": box.width,
            "height": box.height,
            **labels,
            "region_id": region.region_id,
            "padded_share": round(slide.padded_share(box), 6),
        }
        task = CropTask(entry.path, override, box, settings.mpp, self._out / relative)
        return PlannedCrop(task, region.region_id, row)

    def _labels(self, region: Region) -> dict[str, int | None]:
        """Set the labels a region is classified by, if the taxonomy knows any."""
        named: set[str] = set()
        for word in region.labels:
            try:
                named.add(self._taxonomy.find(word).id)
            except TaxonomyError:
                self.plan.unknown_classes[word] += 1
        if not named:
            return dict.fromkeys(self._taxonomy.label_ids)
        flags: dict[str, int | None] = {
            label_id: int(label_id in named) for label_id in self._taxonomy.label_ids
        }
        for first, second in self._taxonomy.conflicts(flags):
            raise RegionError(f"is classified both {first} and {second}, which exclude each other")
        return flags


def refuse_nameless(path: Path, n_slides: int) -> None:
    """Refuse one file for several slides where it does not say which region is whose.

    Parameters
    ----------
    path : Path
    n_slides : int

    Raises
    ------
    RegionError
        If a region names no slide.
    """
    invalid: list[InvalidRegion] = []
    regions: list[Region | InvalidRegion] = [*read_regions(path, invalid=invalid)]
    for region in (*regions, *invalid):
        if region.slide_id is None:
            raise RegionError(
                f"region {region.region_id!r} does not say which of the {n_slides} slides it lies "
                "on; give a folder with one file per slide",
                where=str(path),
            )


def _fingerprint(slide: Slide, regions: Sequence[Region]) -> str:
    """Tell this slide with these regions from any other."""
    own = slide.properties.get("openslide.quickhash-1", "")
    size = 0
    if slide.path.is_file():
        size = slide.path.stat().st_size
        if not own:  # a plain image: another one may be as large
            with slide.path.open("rb") as stream:
                own = hashlib.file_digest(stream, "sha256").hexdigest()
    text = repr((own, size, slide.dimensions, slide.mpp_xy, list(regions)))
    return hashlib.sha256(text.encode()).hexdigest()


def crop_image_id(slide_id: str, region_id: str) -> str:
    """Return the image id of the crop of a region, which a file can be called by anywhere."""
    return safe_name(f"{slide_id}__{region_id}")
