"""Cut the regions of slides to crops and write the manifest of the crops.

A run can be continued: crops are written atomically, existing ones are not cut again, and the rows
are computed again from the regions. ``extract.json`` in the output folder holds the settings and a
fingerprint per slide. It is written before the crops of a slide, so every crop in the folder is
known to be of these settings and regions.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest, write_manifest
from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import ConfigError
from glomerulab.geometry import Region
from glomerulab.inference.detector import open_detector
from glomerulab.pipeline.crop_folder import (
    FAILURES_FILE,
    LOCK_FILE,
    MANIFEST_FILE,
    CropFolder,
    read_failures,
    write_failures,
)
from glomerulab.pipeline.crop_plan import (
    CropPlan,
    CropSettings,
    Failure,
    plan_slide,
)
from glomerulab.pipeline.proposals import PROPOSALS_FOLDER, Proposals, propose_all
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.parallel import Outcome, Workers, map_outcomes, part_slice
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import (
    folder_lock,
)
from glomerulab.slides.cutting import CropTask, close_current_slide, cut_crop, cut_crops
from glomerulab.slides.regions.features import RegionNote, RegionOptions
from glomerulab.slides.regions.selection import left_out_notes
from glomerulab.slides.scale import ScaleWarning
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = ["ExtractSummary", "extract_crops"]

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")

MOST_LINES = 20
NEEDS_REGIONS = (
    "--class, --skip-class, --ignore-bounds and --drawn-mpp say how regions are read; give "
    "--regions with them"
)


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
    n_existing: int
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
    slides_without_regions: tuple[str, ...]
    """Slides whose region file was read and holds no region for them."""
    scale_warnings: Mapping[str, Sequence[ScaleWarning]]
    """By slide id: doubts about its micrometres per pixel."""
    left_out: Mapping[str, Counter[str]]
    """Drawn objects that are no regions, by slide id and kind or class."""
    notes: tuple[tuple[str, RegionNote], ...]
    """What the user must know of the regions of each slide id; of all where it is empty."""

    def unknown_class_lines(self) -> list[str]:
        """Return the classes that set no label, with their counts."""
        if not self.unknown_classes:
            return []
        names = [f"{name!r} ({n}x)" for name, n in self.unknown_classes.items()]
        more = f" and {len(names) - MOST_LINES} more" if len(names) > MOST_LINES else ""
        return [
            "classes that are not in the taxonomy and set no label: "
            + ", ".join(names[:MOST_LINES])
            + more
        ]

    def region_lines(self) -> list[str]:
        """Return what the user must know of the regions, counted over all slides."""
        total = sum(self.left_out.values(), Counter[str]())
        lines = [note.en for note in left_out_notes(total)]
        lines += [
            f"{slide_id}: {note.en}" if slide_id else note.en
            for slide_id, note in self.notes[:MOST_LINES]
        ]
        if len(self.notes) > MOST_LINES:
            lines.append(f"{len(self.notes) - MOST_LINES} more notes on regions are not listed")
        return lines


def extract_crops(
    slides: Path,
    *,
    regions: Path | None = None,
    detector: Path | None = None,
    out: Path,
    settings: CropSettings | None = None,
    taxonomy: Taxonomy | None = None,
    n_workers: int = 1,
    workers: Workers | None = None,
    part: tuple[int, int] | None = None,
    overwrite: bool = False,
    track: Track = silent,
) -> ExtractSummary:
    """Cut every region of every slide and write the manifest of the crops.

    Parameters
    ----------
    slides : Path
        A slide, a folder of slides, or a slides table (CSV).
    regions : Path, optional
        One region file, or a folder with one named after each slide.
    detector : Path, optional
        Instead of regions, the folder of a segmenter that proposes them; ``proposals/`` in `out`
        holds what it proposed.
    out : Path
        Folder for ``crops/``, ``masks/`` (white inside the region), ``manifest.csv``,
        ``failures.csv`` and ``extract.json``. Crops of other slides from earlier runs stay.
    taxonomy : Taxonomy, optional
        By default the built-in ``paper``.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of `n_workers` processes.
    part : tuple of int, optional
        Number of a part and how many there are: cut its slides alone and write no tables. When all
        parts are done, a call without it writes them and cuts what is missing.
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
    settings = settings or CropSettings()
    if (regions is None) == (detector is None):
        raise ConfigError(
            "give regions that were drawn (--regions), or a segmenter that proposes them "
            "(--detect), and not both"
        )
    entries, propose = read_slides(slides), None
    if workers is not None:  # whose working folder is another
        entries = [replace(entry, path=entry.path.absolute()) for entry in entries]
    if detector is not None:
        if settings.region_options != RegionOptions():
            raise ConfigError(NEEDS_REGIONS)
        open_detector(detector)
        propose = partial(
            propose_all,
            detector=detector.absolute(),
            folder=out.absolute() / PROPOSALS_FOLDER,
            mpp_override=settings.mpp_override,
            n_workers=n_workers,
            workers=workers,
            track=track,
        )
    return extract_entries(
        entries,
        regions or out / PROPOSALS_FOLDER,
        out,
        settings=settings,
        taxonomy=taxonomy or load_taxonomy("paper"),
        n_workers=n_workers,
        workers=workers,
        part=part,
        overwrite=overwrite,
        propose=propose,
        track=track,
    )


def extract_entries(
    entries: Sequence[SlideEntry],
    regions: Path,
    out: Path,
    *,
    settings: CropSettings,
    taxonomy: Taxonomy,
    n_slides: int | None = None,
    n_workers: int = 1,
    workers: Workers | None = None,
    part: tuple[int, int] | None = None,
    min_parallel: int = 0,
    overwrite: bool = False,
    inspect: Callable[[SlideEntry], None] | None = None,
    propose: Callable[[Sequence[SlideEntry]], Proposals] | None = None,
    track: Track = silent,
) -> ExtractSummary:
    """Cut every region of the given slides, see `extract_crops`.

    `propose` writes the region files first.

    With one process it cuts the crops of a slide while that is open. With more, or on a cluster,
    slides with a region file each are planned side by side, and then cut. A cluster also plans a
    single slide, so that it has answered before crops are replaced. The region files are meant for
    `n_slides`, by default those given.
    """
    n_slides = len(entries) if n_slides is None else n_slides
    if overwrite and part is not None:
        raise ConfigError(
            "--overwrite would delete the crops of other parts; delete the folder, or choose "
            "another --out"
        )
    if workers is not None:
        regions, out = regions.absolute(), out.absolute()
    entries = entries[part_slice(part or (1, 1), len(entries))]
    lock = LOCK_FILE if part is None else f"{LOCK_FILE}-{part[0]}-{part[1]}"
    with folder_lock(out, lock):
        folder = CropFolder(out, settings.shared(taxonomy), part, overwrite=overwrite)
        if propose is not None:
            make_folder(regions)
        plan = CropPlan(
            entries, regions, out=out, settings=settings, taxonomy=taxonomy, n_slides=n_slides
        )
        if not overwrite:  # else the old crops stay until the new ones can be cut
            folder.begin()
        run = _Run(plan, folder, n_workers, workers, min_parallel=min_parallel)
        proposals = None if propose is None else propose(entries)
        known = () if proposals is None else proposals.failures
        failed = {one.slide for one in known}
        readable = [entry for entry in entries if entry.slide_id not in failed]
        is_parallel = workers is not None or n_workers > 1
        is_of_one = workers is not None and len(readable) == 1
        has_own_files = len(readable) > 1 and regions.is_dir()
        try:
            if is_parallel and inspect is None and (has_own_files or is_of_one):
                plan_one = partial(
                    plan_slide,
                    regions_path=regions,
                    out=out,
                    settings=settings,
                    taxonomy=taxonomy,
                    n_slides=n_slides,
                )
                run.plan(plan_one, readable, track=track)
            else:
                run.cut(readable, inspect=inspect, track=track)
        finally:
            close_current_slide()
        plan.finish(is_part=part is not None)
        folder.begin()
        failures = [*known, *plan.failures, *(run.failed[place] for place in sorted(run.failed))]
        rows = [crop.row for place, crop in enumerate(plan.crops) if place not in run.failed]
        if part is None:
            manifest = _write_tables(out, entries, rows, failures, taxonomy)
            folder.finish()
        else:
            manifest = _manifest(rows, out, taxonomy)
    return ExtractSummary(
        manifest_path=out / MANIFEST_FILE,
        manifest=manifest,
        regions=plan.regions,
        n_cut=run.n_cut,
        n_existing=len(rows) - run.n_cut,
        n_padded=sum(1 for row in rows if row["padded_share"]),
        failures=tuple(failures),
        unknown_classes=dict(plan.unknown_classes),
        enlarged_slides=tuple(plan.enlarged_slides),
        other_slides=tuple(sorted(plan.other_slides)),
        slides_without_regions=tuple(plan.slides_without_regions),
        scale_warnings=plan.scale_warnings,
        left_out=plan.left_out,
        notes=(*plan.notes, *(() if proposals is None else proposals.notes())),
    )


class _Run:
    """Plan and cut slide by slide, so that each slide is open once in this process."""

    def __init__(
        self,
        plan: CropPlan,
        folder: CropFolder,
        n_workers: int,
        workers: Workers | None,
        *,
        min_parallel: int,
    ) -> None:
        self.n_cut = 0
        self.failed: dict[int, Failure] = {}
        """By place in the plan."""
        self._plan = plan
        self._n_workers = n_workers
        self._workers = workers
        self._min_parallel = min_parallel
        self._folder = folder
        self._place_of: dict[CropTask, int] = {}

    def plan(
        self,
        plan_one: Callable[[SlideEntry], tuple[CropPlan, str | None]],
        entries: Sequence[SlideEntry],
        *,
        track: Track,
    ) -> None:
        """Plan the slides side by side, then cut their crops."""
        planned: dict[str, tuple[CropPlan, str | None]] = {}
        with closing(self._map(plan_one, entries)) as outcomes:
            for outcome in track(outcomes, "Reading regions", len(entries)):
                slide_id = outcome.item.slide_id
                if outcome.value is None:  # its worker was killed each time
                    self._plan.failures.append(Failure(slide_id, "", str(outcome.error)))
                else:
                    planned[slide_id] = outcome.value
        fingerprints = {}
        for entry in entries:
            if entry.slide_id not in planned:
                continue
            plan, fingerprint = planned.pop(entry.slide_id)
            self._plan.absorb(plan)
            if fingerprint is not None:
                fingerprints[entry.slide_id] = fingerprint
        self._folder.add_all(fingerprints)
        tasks = [crop.task for crop in self._plan.crops]
        self._place_of = {task: number for number, task in enumerate(tasks)}
        if len(entries) == 1:
            self._cut_each(tasks, self._n_workers, track)
        else:
            self._cut_all(tasks, track)

    def _cut_all(self, tasks: Sequence[CropTask], track: Track) -> None:
        """Cut crops slide by slide: a worker opens each slide once."""
        of_slide: dict[Path, list[CropTask]] = {}
        for task in tasks:
            of_slide.setdefault(task.slide_path, []).append(task)
        with closing(self._map(cut_crops, list(of_slide.values()))) as outcomes:
            for outcome in track(outcomes, "Cutting crops", len(of_slide)):
                if outcome.error is not None:  # its worker was killed each time
                    self._note(Outcome(task, None, outcome.error) for task in outcome.item)
                else:
                    self._note(outcome.value or ())

    def _map(
        self, function: Callable[[_Item], _Value], items: Sequence[_Item]
    ) -> Generator[Outcome[_Item, _Value], None, None]:
        return map_outcomes(function, items, n_workers=self._n_workers, workers=self._workers)

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
                self._folder.add_all({entry.slide_id: fingerprint})
            tasks = [crop.task for crop in plan.crops[n_before:]]
            self._place_of |= {task: n_before + number for number, task in enumerate(tasks)}
            # The slide is open now; with a single one, cutting waits so that its progress is shown.
            if is_by_slide or (len(entries) > 1 and len(plan.crops) < self._min_parallel):
                self._note(map_outcomes(cut_crop, tasks))
            else:
                waiting += tasks
        if waiting:
            n_workers = self._n_workers if len(plan.crops) >= self._min_parallel else 1
            self._cut_each(waiting, n_workers, track)

    def _cut_each(self, tasks: Sequence[CropTask], n_workers: int, track: Track) -> None:
        with closing(
            map_outcomes(cut_crop, tasks, n_workers=n_workers, workers=self._workers)
        ) as outcomes:
            self._note(track(outcomes, "Cutting crops", len(tasks)))

    def _note(self, outcomes: Iterable[Outcome[CropTask, bool]]) -> None:
        for outcome in outcomes:
            if outcome.error is not None:
                place = self._place_of[outcome.item]
                crop = self._plan.crops[place]
                slide_id = str(crop.row["slide_id"])
                self.failed[place] = Failure(slide_id, crop.region_id, str(outcome.error))
            elif outcome.value:
                self.n_cut += 1


def _write_tables(
    out: Path,
    entries: Sequence[SlideEntry],
    rows: list[dict[str, object]],
    failures: list[Failure],
    taxonomy: Taxonomy,
) -> Manifest:
    """Write manifest and failures; rows of slides that this run did not process stay."""
    ours = {entry.slide_id for entry in entries}
    table = _table(rows)
    path = out / MANIFEST_FILE
    if path.is_file():
        before = read_manifest(path, taxonomy).table
        others = before[~before["slide_id"].isin(ours)]
        table = pd.concat([others.astype(object), table.astype(object)], ignore_index=True)
    manifest = manifest_from_rows(table, folder=out, taxonomy=taxonomy)
    write_manifest(manifest, path)
    kept = [one for one in read_failures(out / FAILURES_FILE) if one.slide not in ours]
    write_failures(out / FAILURES_FILE, [*kept, *failures], region_column="region")
    return manifest


def _manifest(rows: list[dict[str, object]], out: Path, taxonomy: Taxonomy) -> Manifest:
    return manifest_from_rows(_table(rows), folder=out, taxonomy=taxonomy)


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=None if rows else ["image_id", "image_path"])
