"""Regions for slides that have none: a detector's proposals, as files like those people draw."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glomerulab.cases.case_folder import Note
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import GlomerulabError
from glomerulab.inference.detector import Detector
from glomerulab.pipeline.extract import Failure
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.regions.proposals import read_scores, write_proposals
from glomerulab.slides.slide import open_slide

__all__ = ["PROPOSALS_FOLDER", "Proposed", "propose_regions"]

PROPOSALS_FOLDER = "proposals"


@dataclass
class Proposed:
    """What was proposed."""

    folder: Path
    """Holds one GeoJSON per slide, called after it."""
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    """By slide id and region id."""
    failures: list[Failure] = field(default_factory=list)
    """Slides that could not be looked at, and why."""
    empty_slides: list[str] = field(default_factory=list)
    """Slides on which the detector found nothing."""
    notes: list[Note] = field(default_factory=list)


def propose_regions(
    entries: Sequence[SlideEntry],
    detector: Detector,
    out: Path,
    *,
    mpp_override: float | None = None,
    stain: str | None = None,
    track: Track = silent,
) -> Proposed:
    """Propose regions on slides; those that this detector proposed before stay as they are.

    Parameters
    ----------
    entries : sequence of SlideEntry
    detector : Detector
    out : Path
        Gets ``proposals/``.
    mpp_override : float, optional
    stain : str, optional
        Of slides that do not say.
    track : Track, optional

    Returns
    -------
    Proposed
        A slide that cannot be looked at stops no other.

    Raises
    ------
    RegionError
        If a person's regions stand where proposals would go.
    """
    found = Proposed(make_folder(out / PROPOSALS_FOLDER))
    made_by = detector.facts.model_dump()
    unseen: set[str] = set()
    for entry in track(entries, "Looking for glomeruli", len(entries)):
        path = found.folder / f"{_file_stem(entry)}.geojson"
        scores = read_scores(path, made_by=made_by)
        try:
            with open_slide(entry.path, mpp_override=mpp_override or entry.mpp) as slide:
                if scores is None:
                    proposals = detector.propose(slide, entry.slide_id)
                    write_proposals(
                        proposals, path, bounds_offset=slide.bounds_offset, made_by=made_by
                    )
                    scores = {one.region.region_id: one.score for one in proposals}
                unseen.add(str(entry.stain or slide.stain or stain))
        except GlomerulabError as error:
            found.failures.append(Failure(entry.slide_id, "", str(error)))
            continue
        found.scores |= {(entry.slide_id, name): score for name, score in scores.items()}
        if not scores:
            found.empty_slides.append(entry.slide_id)
    patients = {entry.slide_id: entry.patient_id for entry in entries}
    unseen -= {*detector.card.stains_seen, "None"}
    found.notes += [
        Note(
            en=f"The detector proposed nothing on slide {name}.",
            zh=f"检测器在切片 {name} 上未检出任何区域。",
            case=patients[name] or name,
        )
        for name in found.empty_slides
    ]
    if unseen:
        stains = ", ".join(sorted(unseen))
        found.notes.append(
            Note(
                en=f"The detector was trained on no slide stained {stains}.",
                zh=f"检测器未用 {stains} 染色的切片训练。",
            )
        )
    return found


def _file_stem(entry: SlideEntry) -> str:
    """Return what the file of a slide is called, so that `region_file_of` finds it."""
    named = entry.slide_id == safe_name(entry.slide_id)
    return entry.slide_id if named else entry.path.name
