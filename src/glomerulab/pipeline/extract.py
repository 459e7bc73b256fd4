"""From slides and their regions to crops and a manifest.

Resumable: crops appear whole, those that are there are not cut again, rows are computed anew from
the regions, so that a run that was killed leaves nothing lost and nothing doubled.
"""

import csv
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from glomerulab.cohort.manifest import manifest_from_rows, read_manifest, write_manifest
from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import OutputError
from glomerulab.pipeline.crop_plan import CropSettings, Failure, Plan, plan_crops
from glomerulab.pipeline.extract_state import (
    FAILURES_FILE,
    MANIFEST_FILE,
    continue_or_refuse,
    exclusive,
    forget_run,
)
from glomerulab.runtime.files import atomic_write, make_folder, remove_partial_files
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.cutting import CropTask, cut_crop
from glomerulab.taxonomy import Taxonomy, load_taxonomy

__all__ = ["CropSettings", "ExtractSummary", "Failure", "extract_crops"]


@dataclass(frozen=True, slots=True)
class ExtractSummary:
    """What a run did."""

    manifest_path: Path
    n_cut: int
    """Crops cut by this run."""
    n_there: int
    """Crops that an earlier run had cut."""
    n_padded: int
    """Crops of this run's slides that reach beyond their slide."""
    failures: tuple[Failure, ...]
    unknown_classes: dict[str, int]
    """Classes of regions that the taxonomy does not know, and how often they stand."""
    enlarged_slides: tuple[str, ...]
    """Slides coarser than the wanted mpp: their crops hold no finer detail."""
    other_slides: tuple[str, ...]
    """Slides that the region file names and that were not among those given."""


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
        One region file, or a folder with one called after each slide.
    out : Path
        Folder for ``crops/``, ``manifest.csv``, ``failures.csv`` and ``extract.json``. Made if
        need be. Crops of other slides that an earlier run put there stay.
    settings : CropSettings, optional
    taxonomy : Taxonomy, optional
        By default the built-in ``paper``.
    n_workers : int, default 1
        Processes.
    overwrite : bool, default False
        Delete what extract wrote to `out` before, and begin anew.
    track : Track, default silent

    Returns
    -------
    ExtractSummary
        With every slide and region that could not be cut; they are in ``failures.csv`` as well.

    Raises
    ------
    GlomerulabError
        If no slide or region file is where it is said to be, or `out` cannot be written to or
        holds crops of other settings.
    """
    settings = settings or CropSettings()
    taxonomy = taxonomy or load_taxonomy("paper")
    entries = read_slides(slides)
    make_folder(out)
    with exclusive(out):
        plan = plan_crops(
            entries, regions, out=out, settings=settings, taxonomy=taxonomy, track=track
        )
        if overwrite:
            forget_run(out)
        continue_or_refuse(
            out, settings=_recorded(settings, taxonomy), fingerprints=plan.fingerprints
        )
        remove_partial_files(out)
        n_cut, failed = _cut_all(plan, n_workers=n_workers, track=track)
        failures = [*plan.failures, *failed.values()]
        rows = [crop.row for place, crop in enumerate(plan.crops) if place not in failed]
        _write_tables(out, entries, rows, failures, taxonomy)
    return ExtractSummary(
        manifest_path=out / MANIFEST_FILE,
        n_cut=n_cut,
        n_there=len(rows) - n_cut,
        n_padded=sum(1 for row in rows if row["padded_share"]),
        failures=tuple(failures),
        unknown_classes=dict(plan.unknown_classes),
        enlarged_slides=tuple(plan.enlarged_slides),
        other_slides=tuple(sorted(plan.other_slides)),
    )


def _recorded(settings: CropSettings, taxonomy: Taxonomy) -> dict[str, object]:
    """Return what all crops of a folder share; the rest is in the fingerprint of each slide."""
    return {
        "mpp": settings.mpp,
        "margin": settings.margin,
        "image_format": settings.image_format,
        "labels": list(taxonomy.label_ids),
    }


def _cut_all(plan: Plan, *, n_workers: int, track: Track) -> tuple[int, dict[int, Failure]]:
    """Cut the crops; give how many were cut, and the failures by their place in the plan."""
    tasks = [crop.task for crop in plan.crops]
    place_of: dict[CropTask, int] = {task: place for place, task in enumerate(tasks)}
    n_cut = 0
    failed: dict[int, Failure] = {}
    with closing(map_outcomes(cut_crop, tasks, n_workers=n_workers)) as outcomes:
        for outcome in track(outcomes, "Cutting crops", len(tasks)):
            if isinstance(outcome.error, OutputError):
                raise outcome.error  # a full or read-only disk is no fault of this region
            if outcome.error is not None:
                place = place_of[outcome.item]
                crop = plan.crops[place]
                slide_id = str(crop.row["slide_id"])
                failed[place] = Failure(slide_id, crop.region_id, str(outcome.error))
            elif outcome.value:
                n_cut += 1
    return n_cut, dict(sorted(failed.items()))


def _write_tables(
    out: Path,
    entries: Sequence[SlideEntry],
    rows: list[dict[str, object]],
    failures: list[Failure],
    taxonomy: Taxonomy,
) -> None:
    """Write manifest and failures; rows of slides that this run did not touch stay."""
    ours = {entry.slide_id for entry in entries}
    table = pd.DataFrame(rows, columns=None if rows else ["image_id", "image_path"])
    path = out / MANIFEST_FILE
    if path.is_file():
        before = read_manifest(path, taxonomy).table
        others = before[~before["slide_id"].isin(ours)]
        table = pd.concat([others.astype(object), table.astype(object)], ignore_index=True)
    write_manifest(manifest_from_rows(table, folder=out, taxonomy=taxonomy), path)
    _write_failures(out / FAILURES_FILE, ours, failures)


def _write_failures(path: Path, ours: set[str], failures: list[Failure]) -> None:
    kept: list[Failure] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as stream:
            before = [
                Failure(row["slide"], row["region"], row["reason"])
                for row in csv.DictReader(stream)
            ]
        kept = [failure for failure in before if failure.slide not in ours]
    if not kept and not failures:
        path.unlink(missing_ok=True)
        return
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("slide", "region", "reason"))
        writer.writerows((each.slide, each.region, each.reason) for each in (*kept, *failures))
