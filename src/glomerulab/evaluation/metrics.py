"""Metrics of classification: confusion matrices, ROC, precision-recall and decision curves.

Functions of counts accept any number of leading axes, so that 2,000 resamples cost one call. A
quotient of 0 by 0 is NaN ("not defined" in reports), never 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from glomerulab.evaluation.eval_set import EvalSet

__all__ = ["label_counts_by_patient", "matrices_by_patient"]

FloatArray = npt.NDArray[np.float64]

N_THRESHOLDS = 99
"""Of a decision curve, equally spaced strictly between 0 and 1."""
N_CELLS_AT_ONCE = 250_000
"""Resamples times images per batch: 2 MB per array stays in the cache."""


@dataclass(frozen=True)
class BinaryCounts:
    """One-vs-rest counts of each label; every array has shape (..., K)."""

    true_positive: FloatArray
    false_positive: FloatArray
    false_negative: FloatArray
    true_negative: FloatArray


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


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold probability; each array has shape (T,)."""

    threshold: FloatArray
    model: FloatArray
    treat_all: FloatArray


def matrices_by_patient(eval_set: EvalSet) -> FloatArray:
    """Return one confusion matrix per patient, shape (P, K, K); rows are the truth."""
    n_classes = eval_set.n_labels
    cells = (eval_set.patients * n_classes + eval_set.truth) * n_classes + eval_set.decision
    counts = np.bincount(cells, minlength=eval_set.n_patients * n_classes**2)
    return counts.reshape(eval_set.n_patients, n_classes, n_classes).astype(np.float64)


def label_counts_by_patient(eval_set: EvalSet) -> BinaryCounts:
    """Return the counts of each patient and label, shape (P, K), over known labels."""
    positive, negative = eval_set.labels == 1, eval_set.labels == 0

    def per_patient(kind: npt.NDArray[np.bool_]) -> FloatArray:
        counts = np.zeros((eval_set.n_patients, eval_set.n_labels))
        np.add.at(counts, eval_set.patients, kind)
        return counts

    return BinaryCounts(
        true_positive=per_patient(positive & eval_set.calls),
        false_positive=per_patient(negative & eval_set.calls),
        false_negative=per_patient(positive & ~eval_set.calls),
        true_negative=per_patient(negative & ~eval_set.calls),
    )


def binary_counts(matrix: FloatArray) -> BinaryCounts:
    """Return one-vs-rest counts of confusion matrices of shape (..., K, K)."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    of_truth, of_decision = matrix.sum(axis=-1), matrix.sum(axis=-2)
    total = matrix.sum(axis=(-2, -1))[..., None]
    return BinaryCounts(
        true_positive=hit,
        false_positive=of_decision - hit,
        false_negative=of_truth - hit,
        true_negative=total - of_truth - of_decision + hit,
    )


def accuracy(matrix: FloatArray) -> FloatArray:
    """Return the accuracy of matrices of shape (..., K, K)."""
    return _divide(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def cohen_kappa(matrix: FloatArray) -> FloatArray:
    """Return Cohen's unweighted κ of matrices of shape (..., K, K).

    Notes
    -----
    Cohen 1960: (p_o - p_e) / (1 - p_e). Not defined where the expected agreement is 1.
    """
    total = matrix.sum(axis=(-2, -1))
    observed = _divide(np.trace(matrix, axis1=-2, axis2=-1), total)
    expected = _divide((matrix.sum(axis=-1) * matrix.sum(axis=-2)).sum(axis=-1), total**2)
    return _divide(observed - expected, 1.0 - expected)


def matthews(matrix: FloatArray) -> FloatArray:
    """Return the K-class Matthews correlation of matrices of shape (..., K, K).

    Notes
    -----
    Gorodkin 2004, R_K. Not defined where only one class occurs or only one is called;
    scikit-learn returns 0 there.
    """
    total = matrix.sum(axis=(-2, -1))
    right = np.trace(matrix, axis1=-2, axis2=-1)
    of_truth, of_decision = matrix.sum(axis=-1), matrix.sum(axis=-2)
    covariance = right * total - (of_truth * of_decision).sum(axis=-1)
    spread = (total**2 - (of_truth**2).sum(axis=-1)) * (total**2 - (of_decision**2).sum(axis=-1))
    return _divide(covariance, np.sqrt(spread))


def matthews_binary(counts: BinaryCounts) -> FloatArray:
    """Return the Matthews correlation of each label, shape (..., K)."""
    tp, fp = counts.true_positive, counts.false_positive
    fn, tn = counts.false_negative, counts.true_negative
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _divide(tp * tn - fp * fn, np.sqrt(spread))


def precision(counts: BinaryCounts) -> FloatArray:
    """Return the positive predictive value; not defined where the label is never called."""
    return _divide(counts.true_positive, counts.true_positive + counts.false_positive)


def recall(counts: BinaryCounts) -> FloatArray:
    """Return the sensitivity."""
    return _divide(counts.true_positive, counts.true_positive + counts.false_negative)


def specificity(counts: BinaryCounts) -> FloatArray:
    """Return the specificity."""
    return _divide(counts.true_negative, counts.true_negative + counts.false_positive)


def f1(counts: BinaryCounts) -> FloatArray:
    """Return the harmonic mean of precision and recall; not defined for an absent label."""
    twice = 2.0 * counts.true_positive
    quotient = _divide(twice, twice + counts.false_positive + counts.false_negative)
    present = counts.true_positive + counts.false_negative > 0
    return np.where(present, quotient, np.nan)


def roc_auc(labels: FloatArray, scores: FloatArray) -> float:
    """Return the area under the ROC curve; NaN unless both outcomes occur.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1, 0, or NaN for unknown; unknown labels are left out.
    scores : ndarray of float, shape (n,)
        Higher means more likely 1.
    """
    labels, scores = _known(labels, scores)
    return float(roc_auc_score(labels, scores)) if _both_outcomes(labels) else float("nan")


def average_precision(labels: FloatArray, scores: FloatArray) -> float:
    """Return the step-wise area under the precision-recall curve; arguments as for `roc_auc`."""
    labels, scores = _known(labels, scores)
    if not _both_outcomes(labels):
        return float("nan")
    return float(average_precision_score(labels, scores))


def roc_points(labels: FloatArray, scores: FloatArray) -> RocCurve | None:
    """Return the ROC curve, or None unless both outcomes occur."""
    labels, scores = _known(labels, scores)
    if not _both_outcomes(labels):
        return None
    false_positive_rate, true_positive_rate, _ = roc_curve(labels, scores)
    return RocCurve(false_positive_rate, true_positive_rate)


def precision_recall_points(labels: FloatArray, scores: FloatArray) -> PrecisionRecallCurve | None:
    """Return the precision-recall curve, or None unless both outcomes occur."""
    labels, scores = _known(labels, scores)
    if not _both_outcomes(labels):
        return None
    precisions, recalls, _ = precision_recall_curve(labels, scores)
    return PrecisionRecallCurve(recalls[::-1], precisions[::-1])


def decision_curve(labels: FloatArray, probabilities: FloatArray) -> DecisionCurve | None:
    r"""Return the net benefit of acting where a probability reaches a threshold.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1, 0, or NaN for unknown; unknown labels are left out.
    probabilities : ndarray of float, shape (n,)
        Calibrated as far as possible, from 0 to 1.

    Returns
    -------
    DecisionCurve or None
        None unless both outcomes occur.

    Notes
    -----
    Vickers & Elkin 2006: :math:`TP/n - FP/n \cdot p_t / (1 - p_t)`. Treating none has benefit 0.
    """
    labels, probabilities = _known(labels, probabilities)
    positive = labels == 1
    if positive.all() or not positive.any():
        return None
    threshold = np.arange(1, N_THRESHOLDS + 1) / (N_THRESHOLDS + 1)
    odds = threshold / (1.0 - threshold)
    treated = probabilities[None, :] >= threshold[:, None]  # (T, n)
    model = (treated & positive).mean(axis=1) - (treated & ~positive).mean(axis=1) * odds
    treat_all = positive.mean() - (~positive).mean() * odds
    return DecisionCurve(threshold, model, treat_all)


def resampled_discrimination(
    labels: FloatArray,
    scores: FloatArray,
    patients: npt.NDArray[np.intp],
    weights: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Compute ROC-AUC and average precision of all resamples of patients.

    Parameters
    ----------
    labels, scores : ndarray of float, shape (n,)
        As for `roc_auc`.
    patients : ndarray of int, shape (n,)
        Each image's patient, a column of `weights`.
    weights : ndarray of float, shape (R, P)
        Number of times that each patient occurs in each resample.

    Returns
    -------
    auc, ap : ndarray of float64, shape (R,)
        NaN where a resample holds one outcome only.

    Notes
    -----
    One sort serves all resamples: a patient drawn twice counts twice, so both areas are sums over
    cumulated weights along the sorted images. Ties are one step, as in scikit-learn.
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
    """Return both areas of resamples whose image weights, by falling score, are (R, n)."""
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
        precisions = np.divide(hit, called, out=np.zeros_like(hit), where=called > 0)
        ap = np.einsum("rn,rn->r", new_hit, precisions) / positives
    one_outcome = (positives == 0) | (negatives == 0)
    auc[one_outcome] = ap[one_outcome] = np.nan
    return auc, ap


def _divide(part: FloatArray, total: FloatArray) -> FloatArray:
    """Divide; NaN where the divisor is 0."""
    part, total = np.asarray(part, dtype=np.float64), np.asarray(total, dtype=np.float64)
    quotient = np.full(np.broadcast_shapes(part.shape, total.shape), np.nan)
    np.divide(part, total, out=quotient, where=total > 0)
    return quotient


def _known(labels: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    known = ~np.isnan(labels)
    return labels[known], scores[known]


def _both_outcomes(labels: FloatArray) -> bool:
    return bool((labels == 1).any() and (labels == 0).any())
