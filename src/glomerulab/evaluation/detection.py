"""Object detection: matching of proposed with annotated regions, recall, precision, intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from glomerulab.evaluation.intervals import (
    Interval,
    patient_weights,
    percentile_interval,
    unseen_share,
)
from glomerulab.geometry import Point
from glomerulab.slides.regions.polygons import centroid, contains, overlap

__all__ = [
    "DetectionScores",
    "MatchRule",
    "SlideMatches",
    "best_threshold",
    "detection_scores",
    "match",
]

MatchRule = Literal["iou", "centre"]
MIN_IOU = 0.5
N_RESAMPLES = 2000

Outline = Sequence[Point]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SlideMatches:
    """Proposals of one slide, matched with its annotated regions."""

    patient: str
    n_truth: int
    scores: FloatArray
    """Of the proposals, highest first, shape (n,)."""
    found: npt.NDArray[np.int64]
    """Index of the annotated region that each proposal matches, -1 for none, shape (n,)."""


@dataclass(frozen=True)
class DetectionScores:
    """Recall and precision over slides, with intervals over patients."""

    n_slides: int
    n_patients: int
    n_truth: int
    n_proposed: int
    n_found: int
    recall: float
    """NaN without annotated regions."""
    precision: float
    """NaN without proposals."""
    recall_interval: Interval
    precision_interval: Interval


def match(
    proposals: Sequence[Outline],
    scores: Sequence[float],
    truth: Sequence[Outline],
    *,
    patient: str,
    rule: MatchRule = "iou",
) -> SlideMatches:
    """Match the proposals of a slide with its annotated regions, one to one.

    Parameters
    ----------
    patient : str
        Patient of the slide, the unit of resampling.
    rule : {"iou", "centre"}, default "iou"
        Intersection over union of at least 0.5, or the proposal's centre inside the region.

    Raises
    ------
    ValueError
        If the rule is unknown.

    Notes
    -----
    As in the PASCAL VOC challenge [1]_: by falling score, each proposal takes the free region that
    it overlaps most; a second proposal for a region is a false positive.

    References
    ----------
    .. [1] Everingham et al., Int. J. Comput. Vis. 88:303-338, 2010.
    """
    if rule not in get_args(MatchRule):
        raise ValueError(f"rule must be one of {get_args(MatchRule)}, got {rule!r}")
    order = np.argsort([-score for score in scores], kind="stable")
    free = dict(enumerate(truth))
    found = np.full(len(order), -1, dtype=np.int64)
    for rank, number in enumerate(order):
        overlaps = {key: _similarity(proposals[number], one, rule) for key, one in free.items()}
        best = max(overlaps, key=lambda key: overlaps[key], default=None)
        if best is not None and overlaps[best] > 0:
            found[rank] = best
            del free[best]
    values = np.asarray(scores, dtype=np.float64)[order] if len(order) else np.zeros(0)
    return SlideMatches(patient, len(truth), values, found)


def detection_scores(
    matches: Sequence[SlideMatches], *, threshold: float = 0.0, seed: int = 0
) -> DetectionScores:
    """Compute recall and precision over slides.

    Parameters
    ----------
    matches : sequence of SlideMatches
        At least one.
    threshold : float, default 0.0
        Proposals with a lower score are ignored.
    seed : int, default 0

    Notes
    -----
    Each end of a 95 % interval is the wider of the bootstrap over patients and Wilson's interval
    over regions; where every region is found, the rule of three over patients is the former.
    """
    patients = sorted({one.patient for one in matches})
    counts = np.zeros((len(patients), 3))  # annotated, proposed, found
    for one in matches:
        kept = one.scores >= threshold
        counts[patients.index(one.patient)] += (
            one.n_truth,
            kept.sum(),
            (kept & (one.found >= 0)).sum(),
        )
    weights = patient_weights(len(patients), n_resamples=N_RESAMPLES, seed=seed)
    n_truth, n_proposed, n_found = (int(value) for value in counts.sum(axis=0))
    annotated, proposed, found = (weights @ counts).T
    return DetectionScores(
        len(matches),
        len(patients),
        n_truth,
        n_proposed,
        n_found,
        n_found / n_truth if n_truth else np.nan,
        n_found / n_proposed if n_proposed else np.nan,
        _interval(_ratio(found, annotated), n_found, n_truth, len(patients)),
        _interval(_ratio(found, proposed), n_found, n_proposed, len(patients)),
    )


def best_threshold(matches: Sequence[SlideMatches]) -> float:
    """Return the score threshold with the highest F1.

    Halfway between the last score above it and the next lower one; 0.5 where nothing was found.
    """
    scores = np.concatenate([one.scores for one in matches])
    found = np.concatenate([one.found >= 0 for one in matches])
    n_truth = sum(one.n_truth for one in matches)
    if not found.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(found[order])
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + n_truth)
    last = int(np.flatnonzero(f1 >= f1.max() - 1e-12)[-1])
    below = scores[last + 1] if last + 1 < len(scores) else 0.0
    return float((scores[last] + below) / 2)


def _similarity(proposal: Outline, truth: Outline, rule: MatchRule) -> float:
    """Return how well a proposal matches a region, 0 for not."""
    if rule == "centre":
        centre = centroid(proposal)
        if not contains(truth, [centre])[0]:
            return 0.0
        return 1.0 / (1.0 + float(np.hypot(*np.subtract(centre, centroid(truth)))))
    if not _boxes_touch(proposal, truth):
        return 0.0
    iou = overlap(proposal, truth)
    return iou if iou >= MIN_IOU else 0.0


def _boxes_touch(one: Outline, other: Outline) -> bool:
    first, second = np.asarray(one), np.asarray(other)
    apart = (first.max(axis=0) < second.min(axis=0)) | (second.max(axis=0) < first.min(axis=0))
    return not bool(apart.any())


def _interval(resampled: FloatArray, n_hits: int, n: int, n_patients: int) -> Interval:
    """Widen the interval over patients to Wilson's."""
    over_patients = percentile_interval(resampled, unseen=unseen_share(n_patients))
    if not n:
        return over_patients
    wilson = binomtest(n_hits, n).proportion_ci(method="wilson")
    low, high = np.fmin(over_patients.low, wilson.low), np.fmax(over_patients.high, wilson.high)
    return Interval(float(low), float(high), over_patients.defined_share, over_patients.method)


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
