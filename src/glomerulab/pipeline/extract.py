"""Cut the regions of slides to crops and write the manifest of the crops.

A run can be continued: crops are written atomically, existing ones are not cut again, and the rows
are computed anew from the regions. ``extract.json`` in the output folder holds the settings and a
fingerprint per slide. It is written before the crops of a slide, so every crop in the folder is
known to be of these settings and regions.
"""

import csv
import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest, write_manifest
from glomerulab.cohort.slides_table import SlideEntry, read_slides, region_file_of
from glomerulab.errors import GlomerulabError, OutputError, RegionError, TaxonomyError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.parallel import Outcome, map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import (
    SettingsFile,
    changed_settings,
    describe_changes,
    folder_lock,
)
from glomerulab.slides.cutting import CropTask, close_current_slide, current_slide, cut_crop
from glomerulab.slides.regions.files import InvalidRegion, read_regions
from glomerulab.slides.slide import Slide
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = [
    "CropSettings",
    "ExtractSummary",
    "Failure",
    "crop_image_id",
    "extract_crops",
    "extract_entries",
    "refuse_nameless",
    "write_failures",
]

CROPS_FOLDER = "crops"
MANIFEST_FILE = "manifest.csv"
FAILURES_FILE = "failures.csv"
STATE_FILE = "extract.json"
LOCK_FILE = ".extract.lock"
FORMAT_VERSION = 1
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
WAY_OUT = "choose another --out, or give --overwrite to cut everything anew"
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


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """The crops of a run, and everything that needs attention."""

    manifest_path: Path
    manifest: Manifest
    """As written; with the crops of other slides from earlier runs."""
    regions: Mapping[str, Sequence[Region]]
    """By slide id, in level-0 pixels."""
    n_cut: int
    """Crops cut by this run."""
    n_there: int
    """Crops that an earlier run had cut."""
    n_padded: int
    """Crops of this run's slides that reach beyond their slide."""
    failures: tuple[Failure, ...]
    unknown_classes: dict[str, int]
    """Classes of regions that are not in the taxonomy, and how often they occur."""
    enlarged_slides: tuple[str, ...]
    """Slides coarser than the wanted mpp: their crops hold no finer detail."""
    other_slides: tuple[str, ...]
    """Slides that the region file names and that were not among those given."""
    bare_slides: tuple[str, ...]
    """Slides whose region file was read and holds no region for them."""


def extract_crops(
    slides: Path,
    *,
    regions: Path,
    out: Path,
    settings: CropSettings | None = None,
    taxonomy: Taxonomy | None = None,
    n_workers: int = 1,
    overwrite: bool = False,
    track: Track = silent,
) -> ExtractSummary:
    """Cut every region of every slide and write the manifest of the crops.

    Parameters
    ----------
    slides : Path
        A slide, a folder of slides, or a slides table (CSV).
    regions : Path
        One region file, or a folder with one named after each slide.
    out : Path
        Folder for ``crops/``, ``manifest.csv``, ``failures.csv`` and ``extract.json``. Crops of
        other slides from earlier runs stay.
    taxonomy : Taxonomy, optional
        By default the built-in ``paper``.
    overwrite : bool, default False
        Delete what extract wrote to `out` before, and start again.

    Returns
    -------
    ExtractSummary
        With every slide and region that could not be cut; ``failures.csv`` lists them as well.

    Raises
    ------
    GlomerulabError
        If a slide or region file is missing, or `out` cannot be written to or holds crops of other
        settings.
    """
    return extract_entries(
        read_slides(slides),
        regions,
        out,
        settings=settings or CropSettings(),
        taxonomy=taxonomy or load_taxonomy("paper"),
        n_workers=n_workers,
        overwrite=overwrite,
        track=track,
    )


def extract_entries(
    entries: Sequence[SlideEntry],
    regions: Path,
    out: Path,
    *,
    settings: CropSettings,
    taxonomy: Taxonomy,
    n_workers: int = 1,
    min_parallel: int = 0,
    overwrite: bool = False,
    inspect: Callable[[SlideEntry], None] | None = None,
    track: Track = silent,
) -> ExtractSummary:
    """Cut every region of the given slides, see `extract_crops`.

    This process opens each slide once. With one worker it cuts the crops from that open slide; with
    more, each worker opens each slide at most once.

    Parameters
    ----------
    min_parallel : int, default 0
        Start workers only for at least this many crops.
    inspect : callable, optional
        Called with each slide before its regions are read. It opens the slide with `current_slide`,
        whose slide is then used for the crops.
    """
    make_folder(out)
    with folder_lock(out, LOCK_FILE):
        plan = CropPlan(entries, regions, out=out, settings=settings, taxonomy=taxonomy)
        run = _Run(plan, n_workers=n_workers, min_parallel=min_parallel, overwrite=overwrite)
        try:
            run.cut(entries, inspect=inspect, track=track)
        finally:
            close_current_slide()
        failures = [*plan.failures, *(run.failed[place] for place in sorted(run.failed))]
        rows = [crop.row for place, crop in enumerate(plan.crops) if place not in run.failed]
        manifest = _write_tables(out, entries, rows, failures, taxonomy)
    return ExtractSummary(
        manifest_path=out / MANIFEST_FILE,
        manifest=manifest,
        regions=plan.regions,
        n_cut=run.n_cut,
        n_there=len(rows) - run.n_cut,
        n_padded=sum(1 for row in rows if row["padded_share"]),
        failures=tuple(failures),
        unknown_classes=dict(plan.unknown_classes),
        enlarged_slides=tuple(plan.enlarged_slides),
        other_slides=tuple(sorted(plan.other_slides)),
        bare_slides=tuple(plan.bare_slides),
    )


class _Run:
    """Plan and cut slide by slide, so that each slide is open once in this process."""

    def __init__(
        self, plan: "CropPlan", *, n_workers: int, min_parallel: int, overwrite: bool
    ) -> None:
        self.n_cut = 0
        self.failed: dict[int, Failure] = {}
        """By place in the plan."""
        self._plan = plan
        self._n_workers = n_workers
        self._min_parallel = min_parallel
        self._folder = _CropFolder(plan.out, plan.shared_settings(), overwrite=overwrite)
        self._place_of: dict[CropTask, int] = {}

    def cut(
        self,
        entries: Sequence[SlideEntry],
        *,
        inspect: Callable[[SlideEntry], None] | None,
        track: Track,
    ) -> None:
        """Cut the crops of all slides."""
        plan = self._plan
        is_by_slide = self._n_workers == 1 and len(entries) > 1
        waiting: list[CropTask] = []
        stage = "Cutting crops" if is_by_slide else "Reading regions"
        for entry in track(entries, stage, len(entries)):
            if inspect is not None:
                inspect(entry)
            n_before = len(plan.crops)
            fingerprint = plan.add(entry)
            if fingerprint is not None:
                self._folder.add(entry.slide_id, fingerprint)
            tasks = [crop.task for crop in plan.crops[n_before:]]
            self._place_of |= {task: n_before + number for number, task in enumerate(tasks)}
            # The slide is open now; with a single one, cutting waits so that its progress is shown.
            if is_by_slide or (len(entries) > 1 and len(plan.crops) < self._min_parallel):
                self._note(map_outcomes(cut_crop, tasks))
            else:
                waiting += tasks
        if waiting:
            n_workers = self._n_workers if len(plan.crops) >= self._min_parallel else 1
            with closing(map_outcomes(cut_crop, waiting, n_workers=n_workers)) as outcomes:
                self._note(track(outcomes, "Cutting crops", len(waiting)))

    def _note(self, outcomes: Iterable[Outcome[CropTask, bool]]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.error, OutputError):
                raise outcome.error  # a full or read-only disk is not a fault of this region
            if outcome.error is not None:
                place = self._place_of[outcome.item]
                crop = self._plan.crops[place]
                slide_id = str(crop.row["slide_id"])
                self.failed[place] = Failure(slide_id, crop.region_id, str(outcome.error))
            elif outcome.value:
                self.n_cut += 1


class CropPlan:
    """The crops of a cohort, planned slide by slide: each region becomes a row or a failure.

    Raises
    ------
    RegionError
        If there is no region file or folder at `regions_path`, or one file for several slides does
        not name the slide of each region.
    """

    def __init__(
        self,
        entries: Sequence[SlideEntry],
        regions_path: Path,
        *,
        out: Path,
        settings: CropSettings,
        taxonomy: Taxonomy,
    ) -> None:
        if not regions_path.exists():
            raise RegionError("there is no such region file or folder", where=str(regions_path))
        if len(entries) > 1 and regions_path.is_file():
            refuse_nameless(regions_path, len(entries))
        self.out = out
        self.crops: list[PlannedCrop] = []
        self.failures: list[Failure] = []
        self.regions: dict[str, list[Region]] = {}
        self.unknown_classes: Counter[str] = Counter()
        self.enlarged_slides: list[str] = []
        self.other_slides: set[str] = set()
        self.bare_slides: list[str] = []
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
            self.bare_slides.append(entry.slide_id)
            raise RegionError(f"no region for slide {entry.slide_id!r}", where=str(path))
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
        row: dict[str, object] = {
            **dict(entry.further),  # first, so that it does not replace extract's own columns
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
                f"the region is classified both {first} and {second}, which exclude each other"
            )
        return flags


class _CropFolder:
    """The record of how the crops of a folder were cut."""

    def __init__(self, out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Begin a run, or continue the one in the folder if its settings are the same."""
        self._out = out
        self._file = SettingsFile(out / STATE_FILE)
        known = self._read()
        if known is not None and overwrite:
            self._delete()
            known = None
        if known is None:
            self._refuse_foreign()
        elif changes := changed_settings(
            {name: known["settings"].get(name) for name in settings}, settings
        ):
            raise OutputError(
                f"the crops in this folder were cut with other settings "
                f"({describe_changes(changes)}); {WAY_OUT}",
                where=str(out),
            )
        self._state: dict[str, Any] = {
            "version": FORMAT_VERSION,
            "settings": dict(settings),
            "fingerprints": {} if known is None else known["fingerprints"],
        }
        self._file.write(self._state)
        remove_partial_files(out)

    def add(self, slide_id: str, fingerprint: str) -> None:
        """Record a slide before its crops are cut, unless it is recorded already.

        Raises
        ------
        OutputError
            If the slide or its regions changed since an earlier run.
        """
        known = self._state["fingerprints"].get(slide_id)
        if known is None:
            self._state["fingerprints"][slide_id] = fingerprint
            self._file.write(self._state)
        elif known != fingerprint:
            raise OutputError(
                f"slide {slide_id!r} or its regions changed since its crops were cut; {WAY_OUT}",
                where=str(self._out),
            )

    def _read(self) -> dict[str, Any] | None:
        state = self._file.read()
        if state is None or (
            state.get("version") == FORMAT_VERSION
            and isinstance(state.get("settings"), dict)
            and isinstance(state.get("fingerprints"), dict)
        ):
            return state
        raise OutputError(
            f"{STATE_FILE} is damaged or was written by another version; choose another --out",
            where=str(self._out),
        )

    def _delete(self) -> None:
        """Delete what extract wrote to the folder, and nothing else."""
        try:
            if (self._out / CROPS_FOLDER).is_dir():
                shutil.rmtree(self._out / CROPS_FOLDER)
            for name in (MANIFEST_FILE, FAILURES_FILE, "taxonomy.toml", STATE_FILE):
                (self._out / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"the crops in this folder cannot be deleted: {error.strerror}",
                where=str(self._out),
            ) from error

    def _refuse_foreign(self) -> None:
        for name in (MANIFEST_FILE, CROPS_FOLDER):
            if (self._out / name).exists():
                raise OutputError(
                    f"this folder holds a {name} that extract did not write; choose another --out",
                    where=str(self._out),
                )


def crop_image_id(slide_id: str, region_id: str) -> str:
    """Return the image id of a region's crop, a valid file name on every system."""
    return safe_name(f"{slide_id}__{region_id}")


def refuse_nameless(path: Path, n_slides: int) -> None:
    """Raise RegionError if a region of a file for several slides does not name its slide."""
    invalid: list[InvalidRegion] = []
    regions: list[Region | InvalidRegion] = [*read_regions(path, invalid=invalid)]
    for region in (*regions, *invalid):
        if region.slide_id is None:
            raise RegionError(
                f"region {region.region_id!r} does not name the slide it lies on, and "
                f"{n_slides} slides were given; give a folder with one file per slide",
                where=str(path),
            )


def write_failures(path: Path, failures: Sequence[Failure], *, region_column: str) -> None:
    """Write the failures as CSV; without any, delete the file."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", region_column, "reason"))
        writer.writerows((one.slide, one.region, one.reason) for one in failures)


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


def _write_tables(
    out: Path,
    entries: Sequence[SlideEntry],
    rows: list[dict[str, object]],
    failures: list[Failure],
    taxonomy: Taxonomy,
) -> Manifest:
    """Write manifest and failures; rows of slides that this run did not process stay."""
    ours = {entry.slide_id for entry in entries}
    table = pd.DataFrame(rows, columns=None if rows else ["image_id", "image_path"])
    path = out / MANIFEST_FILE
    if path.is_file():
        before = read_manifest(path, taxonomy).table
        others = before[~before["slide_id"].isin(ours)]
        table = pd.concat([others.astype(object), table.astype(object)], ignore_index=True)
    manifest = manifest_from_rows(table, folder=out, taxonomy=taxonomy)
    write_manifest(manifest, path)
    kept = [one for one in _read_failures(out / FAILURES_FILE) if one.slide not in ours]
    write_failures(out / FAILURES_FILE, [*kept, *failures], region_column="region")
    return manifest


def _read_failures(path: Path) -> Generator[Failure]:
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                yield Failure(row["slide"], row["region"], row["reason"])
