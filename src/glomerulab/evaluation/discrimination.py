"""How well probabilities put the images of a class before the others: ROC and precision-recall."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

__all__ = [
    "PrecisionRecallCurve",
    "RocCurve",
    "average_precision",
    "precision_recall_points",
    "resampled_discrimination",
    "roc_auc",
    "roc_points",
]

FloatArray = npt.NDArray[np.float64]

N_CELLS_AT_ONCE = 250_000
"""Resamples × images worked on at a time: 2 MB per array stays in the cache."""


@dataclass(frozen=True)
class RocCurve:
    """Points from (0, 0) to (1, 1)."""

    false_positive_rate: FloatArray
    true_positive_rate: FloatArray


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Points from high to low threshold."""

    recall: FloatArray
    precision: FloatArray


def roc_auc(labels: FloatArray, scores: FloatArray) -> float:
    """Area under the ROC curve; NaN where either kind is absent.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1, 0, or NaN for unknown, which is left out.
    scores : ndarray of float, shape (n,)
        Higher means more likely 1.

    Returns
    -------
    float
        From 0 to 1.
    """
    labels, scores = _known(labels, scores)
    if not _both_kinds(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores))


def average_precision(labels: FloatArray, scores: FloatArray) -> float:
    """Area under the precision-recall curve as steps; NaN where either kind is absent.

    Parameters
    ----------
    labels, scores : ndarray of float, shape (n,)
        As for `roc_auc`.

    Returns
    -------
    float
        From 0 to 1; a random order gives the share of positives.
    """
    labels, scores = _known(labels, scores)
    if not _both_kinds(labels):
        return float("nan")
    return float(average_precision_score(labels, scores))


def roc_points(labels: FloatArray, scores: FloatArray) -> RocCurve | None:
    """Return the ROC curve, or None where either kind is absent."""
    labels, scores = _known(labels, scores)
    if not _both_kinds(labels):
        return None
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return RocCurve(false_positive_rate, true_positive_rate)


def precision_recall_points(labels: FloatArray, scores: FloatArray) -> PrecisionRecallCurve | None:
    """Return the precision-recall curve, or None where either kind is absent."""
    labels, scores = _known(labels, scores)
    if not _both_kinds(labels):
        return None
    precision, recall, _ = precision_recall_curve(labels, scores)
    return PrecisionRecallCurve(recall[::-1], precision[::-1])


def resampled_discrimination(
    labels: FloatArray,
    scores: FloatArray,
    patients: npt.NDArray[np.intp],
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Compute ROC-AUC and average precision of every resample of patients at once.

    Parameters
    ----------
    labels, scores : ndarray of float, shape (n,)
        As for `roc_auc`.
    patients : ndarray of int, shape (n,)
        Each image's patient, a column of `weights`.
    weights : ndarray of float, shape (R, P)
        How often each patient stands in each resample.

    Returns
    -------
    auc, ap : ndarray of float64, shape (R,)
        NaN where a resample holds one kind only.

    Notes
    -----
    One sort serves all resamples: a patient drawn twice only counts twice, so both areas are sums
    over cumulated weights along the sorted images. Ties are one step, as in scikit-learn.
    """
    known = ~np.isnan(labels)
    order = np.argsort(-scores[known], kind="stable")
    descending = scores[known][order]
    is_positive = labels[known][order]
    of_patient = patients[known][order]
    is_end = np.append(descending[1:] != descending[:-1], [True])
    # Without ties every image ends its own step: spare the copy.
    ends = None if is_end.all() else np.flatnonzero(is_end)
    auc, ap = np.empty(len(weights)), np.empty(len(weights))
    step = max(1, N_CELLS_AT_ONCE // max(1, len(order)))
    for start in range(0, len(weights), step):
        part = slice(start, start + step)
        auc[part], ap[part] = _areas(weights[part][:, of_patient], is_positive, ends)
    return auc, ap


def _areas(
    weight: FloatArray, is_positive: FloatArray, ends: npt.NDArray[np.intp] | None
) -> tuple[FloatArray, FloatArray]:
    """Both areas of resamples whose image weights, sorted by falling score, are (R, n)."""
    called = np.cumsum(weight, axis=1)
    hit = np.cumsum(weight * is_positive, axis=1)
    if ends is not None:
        called, hit = called[:, ends], hit[:, ends]
    positives = hit[:, -1]
    negatives = called[:, -1] - positives
    new_hit = np.diff(hit, axis=1, prepend=0.0)
    new_miss = np.diff(called, axis=1, prepend=0.0) - new_hit
    with np.errstate(divide="ignore", invalid="ignore"):
        # A positive of this step counts half against the negatives of the same step.
        auc = np.einsum("rn,rn->r", new_miss, hit - new_hit / 2.0) / (positives * negatives)
        precision = np.divide(hit, called, out=np.zeros_like(hit), where=called > 0)
        ap = np.einsum("rn,rn->r", new_hit, precision) / positives
    one_kind = (positives == 0) | (negatives == 0)
    auc[one_kind] = ap[one_kind] = np.nan
    return auc, ap


def _known(labels: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = ~np.isnan(labels)
    return labels[known], scores[known]


def _both_kinds(labels: FloatArray) -> bool:
    return bool((labels == 1).any() and (labels == 0).any())
