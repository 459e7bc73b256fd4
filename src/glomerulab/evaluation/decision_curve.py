"""Decision curves: whether acting on the model does more good than acting on all or none."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DecisionCurve", "decision_curve"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit by threshold probability; each array has shape (T,)."""

    threshold: FloatArray
    model: FloatArray
    treat_all: FloatArray


def decision_curve(
    labels: FloatArray, probabilities: FloatArray, *, n_thresholds: int = 99
) -> DecisionCurve | None:
    r"""Compute the net benefit of acting where a probability reaches a threshold.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1, 0, or NaN for unknown, which is left out.
    probabilities : ndarray of float, shape (n,)
        Calibrated as far as possible, from 0 to 1.
    n_thresholds : int, default 99
        Equally spaced strictly between 0 and 1.

    Returns
    -------
    DecisionCurve or None
        None where either kind is absent.

    Notes
    -----
    Vickers & Elkin 2006: :math:`TP/n - FP/n \cdot p_t / (1 - p_t)`. Acting on none is 0.
    """
    known = ~np.isnan(labels)
    positive = labels[known] == 1
    said = probabilities[known]
    if positive.all() or not positive.any():
        return None
    threshold = np.arange(1, n_thresholds + 1) / (n_thresholds + 1)
    odds = threshold / (1.0 - threshold)
    acted = said[None, :] >= threshold[:, None]  # (T, n)
    model = (acted & positive).mean(axis=1) - (acted & ~positive).mean(axis=1) * odds
    treat_all = positive.mean() - (~positive).mean() * odds
    return DecisionCurve(threshold, model, treat_all)
