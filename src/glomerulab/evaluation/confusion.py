"""Confusion matrices and every score that follows from their counts alone.

All functions work on any number of leading axes, so that 2,000 resamples cost one call. A quotient
of nothing by nothing is NaN, which readers see as "not defined"; it is never 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.evaluation.eval_set import EvalSet

__all__ = [
    "BinaryCounts",
    "accuracy",
    "binary_counts",
    "cohen_kappa",
    "confusion_matrix",
    "f1",
    "label_counts_by_patient",
    "matrices_by_patient",
    "matthews",
    "matthews_binary",
    "precision",
    "recall",
    "specificity",
]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BinaryCounts:
    """Right and wrong calls of each label; every array has shape (..., K)."""

    true_positive: FloatArray
    false_positive: FloatArray
    false_negative: FloatArray
    true_negative: FloatArray


def confusion_matrix(
    truth: npt.NDArray[np.integer], decision: npt.NDArray[np.integer], n_classes: int
) -> FloatArray:
    """Count how often each class was called each class.

    Parameters
    ----------
    truth, decision : ndarray of int, shape (n,)
        From 0 to `n_classes` - 1.
    n_classes : int

    Returns
    -------
    ndarray of float64, shape (n_classes, n_classes)
        Rows are the truth, columns the decision.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1., 1.],
           [0., 1.]])
    """
    places = truth * n_classes + decision
    counts = np.bincount(places, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes).astype(np.float64)


def matrices_by_patient(eval_set: EvalSet) -> FloatArray:
    """Return one confusion matrix per patient, shape (P, K, K), rows being the truth."""
    n_classes = eval_set.n_labels
    places = (eval_set.patients * n_classes + eval_set.truth) * n_classes + eval_set.decision
    counts = np.bincount(places, minlength=eval_set.n_patients * n_classes**2)
    return counts.reshape(eval_set.n_patients, n_classes, n_classes).astype(np.float64)


def label_counts_by_patient(eval_set: EvalSet) -> BinaryCounts:
    """Return right and wrong calls per patient and label, shape (P, K), of known labels."""
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
    """Read each class against the rest off confusion matrices of shape (..., K, K)."""
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
    """Share of images called right, of matrices of shape (..., K, K)."""
    return _share(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def cohen_kappa(matrix: FloatArray) -> FloatArray:
    """Agreement beyond chance, unweighted, of matrices of shape (..., K, K).

    Notes
    -----
    Cohen 1960: (p_o - p_e) / (1 - p_e). Not defined when chance alone agrees always.
    """
    total = matrix.sum(axis=(-2, -1))
    observed = _share(np.trace(matrix, axis1=-2, axis2=-1), total)
    expected = _share((matrix.sum(axis=-1) * matrix.sum(axis=-2)).sum(axis=-1), total**2)
    return _share(observed - expected, 1.0 - expected)


def matthews(matrix: FloatArray) -> FloatArray:
    """Matthews correlation in its form for K classes, of matrices of shape (..., K, K).

    Notes
    -----
    Gorodkin 2004, R_K. Not defined when only one class occurs or only one is called; scikit-learn
    gives 0 there.
    """
    total = matrix.sum(axis=(-2, -1))
    right = np.trace(matrix, axis1=-2, axis2=-1)
    of_truth, of_decision = matrix.sum(axis=-1), matrix.sum(axis=-2)
    covariance = right * total - (of_truth * of_decision).sum(axis=-1)
    spread = (total**2 - (of_truth**2).sum(axis=-1)) * (total**2 - (of_decision**2).sum(axis=-1))
    return _share(covariance, np.sqrt(spread))


def matthews_binary(counts: BinaryCounts) -> FloatArray:
    """Matthews correlation of each label by itself, shape (..., K)."""
    tp, fp = counts.true_positive, counts.false_positive
    fn, tn = counts.false_negative, counts.true_negative
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _share(tp * tn - fp * fn, np.sqrt(spread))


def precision(counts: BinaryCounts) -> FloatArray:
    """Of the images called so, the share that are; not defined where none is called so."""
    return _share(counts.true_positive, counts.true_positive + counts.false_positive)


def recall(counts: BinaryCounts) -> FloatArray:
    """Of the images that are so, the share called so: sensitivity."""
    return _share(counts.true_positive, counts.true_positive + counts.false_negative)


def specificity(counts: BinaryCounts) -> FloatArray:
    """Of the images that are not so, the share not called so."""
    return _share(counts.true_negative, counts.true_negative + counts.false_positive)


def f1(counts: BinaryCounts) -> FloatArray:
    """Harmonic mean of precision and recall; not defined for a class that is absent."""
    twice = 2.0 * counts.true_positive
    quotient = _share(twice, twice + counts.false_positive + counts.false_negative)
    present = counts.true_positive + counts.false_negative > 0
    return np.where(present, quotient, np.nan)


def _share(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide, with NaN where there is nothing to divide by."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
