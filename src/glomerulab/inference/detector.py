"""A detector of glomeruli: a run trained on tiles, with a score threshold fitted on whole slides.

``detector.json`` in the run folder holds the threshold, and how much larger glomeruli are than
their blobs. Both are fitted on the slides of the validation part, the summary on those of the test
part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.cases.case_folder import DetectorFacts
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.slides_table import SlideEntry, regions_on
from glomerulab.errors import CheckpointError, TrainingError
from glomerulab.evaluation.detection import (
    DetectionScores,
    MatchRule,
    SlideMatches,
    best_threshold,
    detection_scores,
    match,
)
from glomerulab.evaluation.intervals import Interval
from glomerulab.geometry import Point, Region
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.score_map import Blob, blob_outline, find_blobs, score_map
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.sealing import SealedFolder
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.regions.polygons import contains, mean_radius
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL, Proposal
from glomerulab.slides.slide import Slide, open_slide

__all__ = ["Detector", "fit_detector", "is_detector", "open_detector"]

DETECTOR_FILE = "detector.json"
LIKELY = 0.5


class DetectorCard(BaseModel):
    """The content of ``detector.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    weights_sha256: str
    """SHA-256 of the weights it was fitted for."""
    score_threshold: float
    """Score from which a blob is proposed."""
    growth: float
    """Radius of a glomerulus over that of its blob."""
    n_validation_slides: int
    stains_seen: tuple[str, ...]
    trained_on_synthetic: bool
    test_summary: str
    """Result on held-out slides, in one sentence; empty without such slides."""
    test_summary_zh: str = ""
    region_options: dict[str, Any] = {}
    """How the regions that it learned from were read."""


@dataclass(frozen=True)
class Detector:
    """A detection network and its card."""

    engine: Engine
    card: DetectorCard
    run: str
    """Name of the run folder."""

    def propose(self, slide: Slide, slide_id: str) -> list[Proposal]:
        """Propose glomeruli of a slide, highest score first.

        Region ids contain `slide_id`: a number alone could be taken for the same glomerulus on
        another section.
        """
        return self.proposals_of(find_blobs(score_map(slide, self.engine)), slide_id)

    def proposals_of(self, blobs: Sequence[Blob], slide_id: str) -> list[Proposal]:
        """Turn blobs with a sufficient score into regions."""
        kept = [blob for blob in blobs if blob.score >= self.card.score_threshold]
        return [
            Proposal(
                Region(
                    f"{slide_id} proposal {number}",
                    blob_outline(blob, growth=self.card.growth),
                    (PROPOSAL_LABEL,),
                ),
                blob.score,
            )
            for number, blob in enumerate(kept, start=1)
        ]

    @property
    def facts(self) -> DetectorFacts:
        """What a predictions folder states about the detector."""
        return DetectorFacts(
            run=self.run,
            weights_sha256=self.engine.weights_sha256,
            score_threshold=self.card.score_threshold,
            test_summary=self.card.test_summary,
            test_summary_zh=self.card.test_summary_zh,
            trained_on_synthetic=self.card.trained_on_synthetic,
        )


@dataclass(frozen=True)
class SlideDetections:
    """The blobs of one slide, and the outlines of its glomeruli."""

    patient: str
    blobs: tuple[Blob, ...]
    truth: tuple[tuple[Point, ...], ...]


def is_detector(folder: Path) -> bool:
    """Return whether a run folder holds a detector, not a classifier."""
    return (folder / DETECTOR_FILE).is_file()


def open_detector(folder: Path) -> Detector:
    """Open what ``train-detector`` made, or its export.

    Raises
    ------
    CheckpointError
        If the folder holds no detector, or its card is damaged or of another network.
    RunError
        If a file is not the one that was sealed.
    """
    files, path = SealedFolder(folder), folder / DETECTOR_FILE
    if folder.is_dir() and not path.is_file():
        raise CheckpointError(
            "the detector's folder holds no detector.json; give one that "
            "`glomerulab train-detector` wrote",
            where=str(folder),
        )
    facts = files.read_facts(
        DETECTOR_FILE, way_out="give the folder that `glomerulab train-detector` wrote"
    )
    try:
        card = DetectorCard.model_validate(facts)
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=str(path)) from error
    engine = open_engine(files)
    if engine.weights_sha256 != card.weights_sha256:
        raise CheckpointError(
            f"the detector.json of {folder.name} was fitted for other weights; run "
            "`glomerulab train-detector` again",
            where=str(folder),
        )
    return Detector(engine, card, folder.resolve().name)


def write_detector_card(card: DetectorCard, folder: Path) -> None:
    with atomic_write(folder / DETECTOR_FILE) as temporary:
        temporary.write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def fit_detector(
    run: Path,
    tiles: Manifest,
    entries: Sequence[SlideEntry],
    regions_path: Path,
    *,
    region_options: RegionOptions | None = None,
    track: Track = silent,
) -> DetectorCard:
    """Fit the threshold and the growth of a detector, and write its card.

    Parameters
    ----------
    run : Path
        Run folder of a network that was trained on `tiles`.
    tiles : Manifest
        Its split is also that of the slides.
    regions_path : Path
        Outlines of the glomeruli: a region file, or a folder with one per slide.

    Raises
    ------
    TrainingError
        If the network finds nothing on the validation slides.
    """
    files = SealedFolder(run, rewriting=DETECTOR_FILE)
    engine = open_engine(files)
    split_of = {
        str(slide): str(split)
        for slide, split in zip(tiles.table["slide_id"], tiles.table["split"], strict=True)
    }
    validation, test = (
        [
            detect_on(entry, regions_path, engine, region_options)
            for entry in track(
                [entry for entry in entries if split_of.get(entry.slide_id) == split],
                f"Detecting on {split} slides",
            )
        ]
        for split in ("validation", "test")
    )
    growth = _growth(validation, where=run)
    threshold = best_threshold(match_slides(validation, growth=growth))
    synthetic = tiles.is_synthetic
    summary = summary_zh = ""
    if test:
        scores = detection_scores(match_slides(test, growth=growth), threshold=threshold)
        summary = detection_summary(scores, "en", synthetic=synthetic)
        summary_zh = detection_summary(scores, "zh", synthetic=synthetic)
    stains = tiles.part("train").table["stain"]
    card = DetectorCard(
        weights_sha256=engine.weights_sha256,
        score_threshold=threshold,
        growth=growth,
        n_validation_slides=len(validation),
        stains_seen=tuple(sorted({str(stain) for stain in stains.dropna()})),
        trained_on_synthetic=synthetic,
        test_summary=summary,
        test_summary_zh=summary_zh,
        region_options=(region_options or RegionOptions()).record(),
    )
    write_detector_card(card, run)
    files.reseal()
    return card


def detect_on(
    entry: SlideEntry, regions_path: Path, engine: Engine, options: RegionOptions | None = None
) -> SlideDetections:
    """Run a network on a slide with known glomeruli."""
    with open_slide(entry.path, mpp_override=entry.mpp) as slide:
        regions = regions_on(entry, regions_path, slide, options or RegionOptions()).regions
        blobs = find_blobs(score_map(slide, engine))
    return SlideDetections(
        entry.patient_id or entry.slide_id, tuple(blobs), tuple(one.polygon for one in regions)
    )


def match_slides(
    slides: Sequence[SlideDetections], *, growth: float, rule: MatchRule = "iou"
) -> list[SlideMatches]:
    """Match the blobs of each slide with its glomeruli."""
    return [
        match(
            [blob_outline(blob, growth=growth) for blob in one.blobs],
            [blob.score for blob in one.blobs],
            one.truth,
            patient=one.patient,
            rule=rule,
        )
        for one in slides
    ]


def detection_summary(scores: DetectionScores, language: Language, *, synthetic: bool) -> str:
    """Summarise the scores of a detector in one sentence."""
    return translate(
        "On {n_slides} {slides} of {n_patients} patients it never saw it found {n_found} of "
        "{n_truth} glomeruli (recall {recall:.2f}, {recall_interval}), and {n_found} of "
        "{n_proposed} proposals were right (precision {precision:.2f}, {precision_interval}); "
        "right is an overlap (IoU) of at least 0.5.",
        language,
        n_slides=scores.n_slides,
        slides=(
            translate("detector|synthetic slides", language)
            if synthetic
            else translate("detector|slides", language)
        ),
        n_patients=scores.n_patients,
        n_found=scores.n_found,
        n_truth=scores.n_truth,
        n_proposed=scores.n_proposed,
        recall=scores.recall,
        recall_interval=_interval(scores.recall_interval, language),
        precision=scores.precision,
        precision_interval=_interval(scores.precision_interval, language),
    )


def _interval(interval: Interval, language: Language) -> str:
    return translate(
        "95 % interval {low:.2f} to {high:.2f}", language, low=interval.low, high=interval.high
    )


def _growth(slides: Sequence[SlideDetections], *, where: Path) -> float:
    """Return the median ratio of the radius of a glomerulus to that of its blob."""
    ratios = [
        mean_radius(outline) / blob.radius
        for one in slides
        for blob in one.blobs
        for outline in one.truth
        if blob.score >= LIKELY and contains(outline, [(blob.x, blob.y)])[0]
    ]
    if not ratios:
        raise TrainingError(
            "the network finds no glomerulus on the validation slides; train longer with "
            "--set epochs=N, or on more slides",
            where=str(where),
        )
    return float(np.median(ratios))
