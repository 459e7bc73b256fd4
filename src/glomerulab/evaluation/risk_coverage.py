"""Risk-coverage: how errors fall when the least certain images are referred to a person."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.evaluation.eval_set import EvalSet

__all__ = ["RiskCoverage", "image_confidence", "image_is_right", "risk_coverage"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RiskCoverage:
    """Share of errors among the most certain images, by the share that is kept."""

    coverage: FloatArray
    """From 1/n to 1."""
    risk: FloatArray
    """Share of the kept images that are wrong."""
    area: float
    """Mean risk over all coverages; lower is better."""


def image_confidence(eval_set: EvalSet) -> FloatArray:
    """Return how certain the model is of each image, shape (n,).

    Under softmax the probability of its decision; under sigmoid the smallest, over the known
    labels, of the probability of its call.
    """
    if eval_set.head == "softmax":
        return np.asarray(eval_set.probabilities.max(axis=1), dtype=np.float64)
    of_call = np.where(eval_set.calls, eval_set.probabilities, 1.0 - eval_set.probabilities)
    return np.asarray(np.nanmin(np.where(np.isnan(eval_set.labels), np.nan, of_call), axis=1))


def image_is_right(eval_set: EvalSet) -> npt.NDArray[np.bool_]:
    """Return whether every known label of an image was called right, shape (n,)."""
    agrees = (eval_set.calls == (eval_set.labels == 1)) | np.isnan(eval_set.labels)
    return np.asarray(agrees.all(axis=1), dtype=np.bool_)


def risk_coverage(eval_set: EvalSet) -> RiskCoverage:
    """Keep images from the most certain on, and follow the share that is wrong.

    Parameters
    ----------
    judged : Judged

    Returns
    -------
    RiskCoverage
        One point per distinct confidence: equally certain images cannot be told apart.

    Notes
    -----
    Geifman & El-Yaniv 2017. Ours: the area is the mean of the risk over images, each at the
    coverage at which it would be kept.
    """
    confidence = image_confidence(eval_set)
    order = np.argsort(-confidence, kind="stable")
    wrong = ~image_is_right(eval_set)[order]
    kept = np.arange(1, len(order) + 1)
    risk = np.cumsum(wrong) / kept
    sorted_confidence = confidence[order]
    is_end = np.append(sorted_confidence[1:] != sorted_confidence[:-1], [True])
    ends = np.flatnonzero(is_end)
    steps = np.diff(ends, prepend=-1)
    area = float(np.average(risk[ends], weights=steps))
    return RiskCoverage(kept[ends] / len(order), risk[ends], area)
