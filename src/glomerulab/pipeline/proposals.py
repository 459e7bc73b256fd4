"""Have a detector propose the regions of slides, slide by slide."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from glomerulab.cases.case_folder import Note
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.inference.detector import Detector, open_detector
from glomerulab.pipeline.crop_plan import Failure
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.kept import kept
from glomerulab.runtime.names import hashed_name, safe_name
from glomerulab.runtime.parallel import Workers, map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.tables import nfc
from glomerulab.slides.cutting import close_current_slide, current_slide
from glomerulab.slides.regions.features import RegionNote
from glomerulab.slides.regions.proposals import read_scores, write_proposals
from glomerulab.structures.summary import SUMMARY_FILE

__all__ = ["PROPOSALS_FOLDER", "Proposals", "Proposed", "check_proposals", "propose", "propose_all"]

PROPOSALS_FOLDER = "proposals"


@dataclass(frozen=True, slots=True)
class Proposed:
    """What a detector proposed on a slide."""

    scores: dict[str, float]
    """By region id."""
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Proposals:
    """What a detector proposed on many slides."""

    found: Mapping[str, Proposed]
    """By id of the slide."""
    failures: tuple[Failure, ...]
    """Slides on which the detector could not be run."""

    def notes(self) -> Iterator[tuple[str, RegionNote]]:
        """Yield what the user must know, with the id of the slide."""
        for slide_id, one in self.found.items():
            for note in one.notes:
                yield slide_id, RegionNote(note.en, note.zh)
            if not one.scores:
                text = "The detector proposed nothing on slide {slide}."
                yield slide_id, RegionNote.of(text, slide=slide_id)


def propose(
    entry: SlideEntry,
    detector: Detector,
    folder: Path,
    *,
    structures: Path | None = None,
    stain: str | None = None,
    mpp_override: float | None = None,
    track: Track = silent,
) -> Proposed:
    """Write the proposals of a slide, unless the same detector wrote them in an earlier run.

    `structures` gets a folder of each slide with what else the detector outlines, if a report
    measures that.

    Raises
    ------
    RegionError
        If a person changed the proposals since.
    GlomerulabError
        If the slide cannot be read or segmented.
    """
    path, made_by = _path(entry, folder), detector.facts.model_dump()
    known = read_scores(path, made_by=made_by)
    outlined = None
    if structures is not None and detector.knows_tissue:
        outlined = structures / hashed_name(entry.slide_id)
    if known is not None and (outlined is None or (outlined / SUMMARY_FILE).is_file()):
        scores, notes = known
        return Proposed(scores, tuple(Note.model_validate(one) for one in notes))
    slide = current_slide(entry.path, mpp_override=mpp_override or entry.mpp)
    found = detector.propose(
        slide,
        entry.slide_id,
        make_folder(folder),
        structures=outlined,
        stain=entry.stain or slide.stain or stain,
        track=track,
    )
    write_proposals(
        found.proposals,
        path,
        bounds_offset=slide.bounds_offset,
        made_by=made_by,
        notes=[{"en": note.en, "zh": note.zh} for note in found.notes],
    )
    return Proposed({one.region.region_id: one.score for one in found.proposals}, found.notes)


def propose_all(
    entries: Sequence[SlideEntry],
    detector: Path,
    folder: Path,
    *,
    mpp_override: float | None = None,
    n_workers: int = 1,
    workers: Workers | None = None,
    track: Track = silent,
) -> Proposals:
    """Write the proposals of many slides to `folder`, side by side."""
    found: dict[str, Proposed] = {}
    failures = []
    work = partial(_propose_on, detector=detector, folder=folder, mpp_override=mpp_override)
    with closing(map_outcomes(work, entries, n_workers=n_workers, workers=workers)) as outcomes:
        for one in track(outcomes, "Finding glomeruli", len(entries)):
            if one.value is None:
                failures.append(Failure(one.item.slide_id, "", str(one.error)))
            else:
                found[one.item.slide_id] = one.value
    order = {entry.slide_id: number for number, entry in enumerate(entries)}
    return Proposals(
        {name: found[name] for name in order if name in found},
        tuple(sorted(failures, key=lambda one: order[one.slide])),
    )


def check_proposals(entry: SlideEntry, detector: Detector, folder: Path) -> None:
    """Raise a `RegionError` if a person changed the proposals of an earlier run."""
    read_scores(_path(entry, folder), made_by=detector.facts.model_dump())


def _path(entry: SlideEntry, folder: Path) -> Path:
    """Return a file by which `region_file_of` finds the proposals of this slide alone."""
    stem = safe_name(entry.slide_id)
    if stem != entry.slide_id and nfc(entry.path.name) in entry.other_names:
        stem = entry.path.name
    return folder / f"{stem}.geojson"


def _propose_on(
    entry: SlideEntry, *, detector: Path, folder: Path, mpp_override: float | None
) -> Proposed:
    """Propose in a worker, which keeps the detector from slide to slide."""
    try:
        return propose(entry, kept(open_detector, detector), folder, mpp_override=mpp_override)
    finally:
        close_current_slide()
