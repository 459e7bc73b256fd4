"""Find from which score a detector's proposals count, and say how it does on slides it never saw.

Threshold and size rest on the slides of the validation part, the scores on those of the test part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.slides_table import SlideEntry, regions_on
from glomerulab.errors import TrainingError
from glomerulab.evaluation.detection import (
    DetectionScores,
    MatchRule,
    SlideMatches,
    best_threshold,
    detection_scores,
    match,
)
from glomerulab.evaluation.intervals import Interval
from glomerulab.geometry import Point
from glomerulab.inference.detector import DetectorCard, write_detector_card
from glomerulab.inference.engines.base import Engine, open_engine
from glomerulab.inference.proposals import Blob, blob_outline, find_blobs
from glomerulab.inference.score_map import score_map
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.regions.polygons import contains, mean_radius
from glomerulab.slides.slide import open_slide

__all__ = ["LookedAt", "fit_detector", "look_at", "matches_of", "summary_of", "summary_zh_of"]

LIKELY = 0.5


@dataclass(frozen=True)
class LookedAt:
    """One slide: what a detector sees on it, and what was drawn."""

    patient: str
    blobs: tuple[Blob, ...]
    truth: tuple[tuple[Point, ...], ...]


def fit_detector(
    run: Path,
    tiles: Manifest,
    entries: Sequence[SlideEntry],
    regions_path: Path,
    *,
    track: Track = silent,
) -> DetectorCard:
    """Fit a detector's threshold and size, and write its card.

    Parameters
    ----------
    run : Path
        Run folder of a network that was trained on `tiles`.
    tiles : Manifest
        With its split, which is the slides' too.
    entries : sequence of SlideEntry
    regions_path : Path
    track : Track, optional

    Returns
    -------
    DetectorCard

    Raises
    ------
    TrainingError
        If the network finds nothing on the validation slides.
    """
    engine = open_engine(run)
    parts = _parts(tiles, entries)
    seen = {
        name: [look_at(entry, regions_path, engine) for entry in track(part, f"Looking: {name}")]
        for name, part in parts.items()
    }
    growth = _growth(seen["validation"], where=run)
    threshold = best_threshold(matches_of(seen["validation"], growth=growth))
    synthetic = tiles.is_synthetic
    summary = summary_zh = ""
    if seen["test"]:
        scores = detection_scores(matches_of(seen["test"], growth=growth), threshold=threshold)
        summary = summary_of(scores, synthetic=synthetic)
        summary_zh = summary_zh_of(scores, synthetic=synthetic)
    stains = tiles.table.loc[(tiles.table["split"] == "train").fillna(value=False), "stain"]
    card = DetectorCard(
        weights_sha256=engine.weights_sha256,
        score_threshold=threshold,
        growth=growth,
        n_validation_slides=len(seen["validation"]),
        stains_seen=tuple(sorted({str(stain) for stain in stains.dropna()})),
        trained_on_synthetic=synthetic,
        test_summary=summary,
        test_summary_zh=summary_zh,
    )
    write_detector_card(card, run)
    return card


def look_at(entry: SlideEntry, regions_path: Path, engine: Engine) -> LookedAt:
    """Let a network look at a slide whose glomeruli are known.

    Parameters
    ----------
    entry : SlideEntry
    regions_path : Path
    engine : Engine

    Returns
    -------
    LookedAt
    """
    with open_slide(entry.path, mpp_override=entry.mpp) as slide:
        regions = regions_on(entry, regions_path, bounds_offset=slide.bounds_offset)
        blobs = find_blobs(score_map(slide, engine))
    return LookedAt(
        entry.patient_id or entry.slide_id, tuple(blobs), tuple(one.polygon for one in regions)
    )


def matches_of(
    seen: Sequence[LookedAt], *, growth: float, rule: MatchRule = "iou"
) -> list[SlideMatches]:
    """Match what was seen with what was drawn, slide by slide.

    Parameters
    ----------
    seen : sequence of LookedAt
    growth : float
        See `DetectorCard`.
    rule : {"iou", "centre"}, default "iou"

    Returns
    -------
    list of SlideMatches
    """
    return [
        match(
            [blob_outline(blob, growth=growth) for blob in one.blobs],
            [blob.score for blob in one.blobs],
            one.truth,
            patient=one.patient,
            rule=rule,
        )
        for one in seen
    ]


def summary_of(scores: DetectionScores, *, synthetic: bool) -> str:
    """Say in one sentence how a detector did."""
    kind = "synthetic slides" if synthetic else "slides"
    return (
        f"On {scores.n_slides} {kind} of {scores.n_patients} patients it never saw it found "
        f"{scores.n_found} of {scores.n_truth} glomeruli (recall {scores.recall:.2f}, "
        f"{_ends(scores.recall_interval)}), and {scores.n_found} of {scores.n_proposed} proposals "
        f"were right (precision {scores.precision:.2f}, {_ends(scores.precision_interval)}); "
        "right is an overlap (IoU) of at least 0.5."
    )


def summary_zh_of(scores: DetectionScores, *, synthetic: bool) -> str:
    """Say the same in Chinese."""
    kind = "合成切片" if synthetic else "切片"
    return (
        f"在训练中未见过的 {scores.n_patients} 名患者的 {scores.n_slides} 张{kind}上，"
        f"{scores.n_truth} 个肾小球中检出 {scores.n_found} 个（召回率 {scores.recall:.2f}，"
        f"{_ends_zh(scores.recall_interval)}），{scores.n_proposed} 个提议中 {scores.n_found} 个"
        f"正确（精确率 {scores.precision:.2f}，{_ends_zh(scores.precision_interval)}）；"
        "交并比（IoU）不低于 0.5 视为正确。"
    )


def _ends_zh(interval: Interval) -> str:
    return f"95%区间 {interval.low:.2f} 至 {interval.high:.2f}"


def _ends(interval: Interval) -> str:
    return f"95 % interval {interval.low:.2f} to {interval.high:.2f}"


def _parts(tiles: Manifest, entries: Sequence[SlideEntry]) -> dict[str, list[SlideEntry]]:
    pairs = zip(tiles.table["slide_id"], tiles.table["split"], strict=True)
    part_of: Mapping[str, str] = {str(slide): str(split) for slide, split in pairs}
    return {
        name: [entry for entry in entries if part_of.get(entry.slide_id) == name]
        for name in ("validation", "test")
    }


def _growth(seen: Sequence[LookedAt], *, where: Path) -> float:
    """Return how much larger glomeruli are than the blobs on them, by the median."""
    ratios = [
        mean_radius(outline) / blob.radius
        for one in seen
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
