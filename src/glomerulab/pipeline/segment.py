"""Outline the structures of slides with a segmenter, a folder for each slide.

A run can be continued: ``slide.json`` is written last into a slide's folder, and a slide that has
one of the same file, model and settings is not segmented again.
"""

import csv
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import GlomerulabError
from glomerulab.inference.outlines import segmenter_notes, write_outlined
from glomerulab.inference.segmenter import open_segmenter
from glomerulab.inference.slide_segmenter import segment_slide
from glomerulab.pipeline.crop_folder import write_failures
from glomerulab.pipeline.crop_plan import Failure
from glomerulab.runtime.files import (
    StrPath,
    atomic_write,
    new_folder,
    partial_folder,
    size_and_mtime,
)
from glomerulab.runtime.kept import kept
from glomerulab.runtime.names import distinct_names
from glomerulab.runtime.parallel import Workers, map_outcomes, part_slice
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile, folder_lock
from glomerulab.runtime.tables import not_a_formula
from glomerulab.slides.slide import open_slide
from glomerulab.structures.summary import SUMMARY_FILE, read_summary
from glomerulab.structures.write import STRUCTURE_FORMATS, StructureFormat

__all__ = ["SegmentSummary", "SegmentedSlide", "segment_slides"]

SLIDES_FOLDER = "slides"
SETTINGS_FILE = "segment.json"
SLIDE_FILE = "slide.json"
TABLE_FILE = "slides.csv"
FAILURES_FILE = "failures.csv"
LOCK_FILE = ".segment.lock"
UM2_PER_MM2 = 1e6
RECORD_KEYS = {"slide_id", "formats", "n_tiles", "tissue_mm2", "failed_tiles", "notes"}
COLUMNS = ("slide_id", "patient_id", "stain", "folder", "mpp", "tissue_mm2", "failed_tiles")
"""Of the table; the areas and counts of the structures follow."""


@dataclass(frozen=True, slots=True)
class SegmentedSlide:
    """A slide that is done."""

    slide_id: str
    folder: Path
    is_new: bool
    """Whether this run segmented it."""
    n_failed_tiles: int
    notes: tuple[str, ...]
    """What the user must know, in English."""


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """What a run did."""

    folder: Path
    slides: tuple[SegmentedSlide, ...]
    failures: tuple[Failure, ...]
    """Slides without a result."""
    notes: tuple[str, ...] = ()
    """What holds for every slide, such as structures that the segmenter hardly finds."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What all slides share."""

    run: Path
    formats: tuple[StructureFormat, ...]
    mpp_override: float | None
    stain: str | None


def segment_slides(
    slides: StrPath,
    run: StrPath,
    out: StrPath,
    *,
    formats: Sequence[StructureFormat] = STRUCTURE_FORMATS,
    mpp_override: float | None = None,
    stain: str | None = None,
    n_workers: int = 1,
    workers: Workers | None = None,
    part: tuple[int, int] | None = None,
    track: Track = silent,
) -> SegmentSummary:
    """Outline the structures of every slide.

    Parameters
    ----------
    slides : Path
        A slide, a folder of slides, or a slides table (CSV).
    run : Path
        Folder of a segmenter.
    out : Path
        Gets ``slides/`` with a folder for each, ``slides.csv`` (areas and counts),
        ``failures.csv`` and ``segment.json``.
    formats : sequence of str, optional
        As for `glomerulab.structures.write.write_structures`.
    mpp_override : float, optional
        Micrometres per pixel of level 0 of every slide, in place of the files' metadata.
    stain : str, optional
        Of slides that do not state theirs.
    workers : Workers, optional
        Of a cluster, which sees the same paths; in place of `n_workers` processes.
    part : tuple of int, optional
        Number of a part and how many there are: segment its slides and write no tables. When all
        parts are done, a call without it writes them and segments what is missing.

    Raises
    ------
    GlomerulabError
        If the slides or the segmenter cannot be read, or `out` cannot be written to or holds
        results of another model or other settings.
    """
    run, out = Path(run).absolute(), Path(out).absolute()
    entries = [replace(one, path=one.path.absolute()) for one in read_slides(Path(slides))]
    names = distinct_names([entry.slide_id for entry in entries])
    places = [out / SLIDES_FOLDER / name for name in names]
    mine = part_slice(part or (1, 1), len(entries))
    items = list(zip(entries, places, strict=True))[mine]
    job = _Job(run, tuple(formats), mpp_override, stain)
    card = kept(open_segmenter, run).card
    settings = {
        "research_use_only": True,
        "model": card.weights_sha256,
        "mpp_override": mpp_override,
        "stain": stain,
    }
    lock = LOCK_FILE if part is None else f"{LOCK_FILE}-{part[0]}-{part[1]}"
    with folder_lock(out, lock):
        SettingsFile(out / SETTINGS_FILE).continue_or_refuse(
            settings, way_out="choose another --out"
        )
        done: dict[str, SegmentedSlide] = {}
        failures: dict[str, Failure] = {}
        # The progress of a single slide is that of its tiles.
        is_single = workers is None and len(items) == 1
        work = partial(_segment, job=job, track=track if is_single else silent)
        of_slides = silent if is_single else track
        with closing(map_outcomes(work, items, n_workers=n_workers, workers=workers)) as outcomes:
            for one in of_slides(outcomes, "Segmenting slides", len(items)):
                name = one.item[0].slide_id
                if one.value is None:
                    failures[name] = Failure(name, "", str(one.error))
                else:
                    done[name] = one.value
        ordered = [entry.slide_id for entry, _ in items]
        summary = SegmentSummary(
            out,
            tuple(done[name] for name in ordered if name in done),
            tuple(failures[name] for name in ordered if name in failures),
            tuple(segmenter_notes(card, run.resolve().name)),
        )
        if part is None:
            _write_table(out, entries, summary.slides)
            write_failures(out / FAILURES_FILE, summary.failures, region_column="region")
            for path in out.glob(f"{LOCK_FILE}-*"):
                path.unlink(missing_ok=True)
    return summary


def _segment(item: tuple[SlideEntry, Path], *, job: _Job, track: Track = silent) -> SegmentedSlide:
    """Segment a slide in a worker, which keeps the segmenter from slide to slide."""
    entry, folder = item
    override, stain = job.mpp_override or entry.mpp, entry.stain or job.stain
    made_from = {
        "slide_id": entry.slide_id,
        "n_bytes": _n_bytes(entry.path),
        "mpp_override": override,
        "stain": stain,
    }
    segmenter = kept(open_segmenter, job.run)
    hardly_found = segmenter.card.hardly_found
    record = _read_record(folder)
    if (
        made_from.items() <= record.items()
        and set(job.formats) <= set(record["formats"])
        and record.get("not_assessed", {}) == hardly_found
    ):
        return _segmented(folder, record, is_new=False)
    with (
        open_slide(entry.path, mpp_override=override) as slide,
        new_folder(folder),
        partial_folder(folder / "map") as temporary,
    ):
        (folder / SLIDE_FILE).unlink(missing_ok=True)
        found = segment_slide(slide, segmenter, temporary, track=track)
        notes = write_outlined(
            found,
            slide,
            folder,
            segmenter=segmenter,
            run=job.run.resolve().name,
            formats=job.formats,
            slide_id=entry.slide_id,
            stain=stain,
        )
    record = {
        **made_from,
        "not_assessed": hardly_found,
        "formats": list(job.formats),
        "n_tiles": found.n_tiles,
        "tissue_mm2": found.tissue_um2 / UM2_PER_MM2,
        "failed_tiles": [{**asdict(one.box), "reason": one.reason} for one in found.failures],
        "notes": list(notes),
    }
    SettingsFile(folder / SLIDE_FILE).write(record)
    return _segmented(folder, record, is_new=True)


def _read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a slide that is done; empty where it is not, or damaged."""
    try:
        record = SettingsFile(folder / SLIDE_FILE).read() or {}
        if record:
            read_summary(folder / SUMMARY_FILE)
    except GlomerulabError:
        return {}
    return record if record.keys() >= RECORD_KEYS else {}


def _segmented(folder: Path, record: Mapping[str, Any], *, is_new: bool) -> SegmentedSlide:
    return SegmentedSlide(
        str(record["slide_id"]),
        folder,
        is_new,
        len(record["failed_tiles"]),
        tuple(record["notes"]),
    )


def _n_bytes(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(size_and_mtime(one)[0] for one in files)


def _write_table(
    out: Path, entries: Sequence[SlideEntry], slides: Sequence[SegmentedSlide]
) -> None:
    """Write one row for each slide that is done: areas and counts of its structures."""
    patients = {entry.slide_id: entry.patient_id or "" for entry in entries}
    rows = []
    for one in slides:
        summary = read_summary(one.folder / SUMMARY_FILE)
        record = _read_record(one.folder)
        own = (
            one.slide_id,
            patients[one.slide_id],
            summary.stain or "",
            one.folder.relative_to(out).as_posix(),
            f"{sum(summary.mpp) / 2:.6g}",
            f"{record['tissue_mm2']:.6g}",
            one.n_failed_tiles,
        )
        row: dict[str, object] = dict(zip(COLUMNS, own, strict=True))
        for name, found in summary.structures.items():
            row[f"{name}_mm2"] = f"{found.area_mm2.likely:.6g}"
            if found.n is not None:
                row[f"n_{name}"] = f"{found.n.likely:.0f}"
        rows.append({name: not_a_formula(cell) for name, cell in row.items()})
    columns = dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
    with (
        atomic_write(out / TABLE_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
