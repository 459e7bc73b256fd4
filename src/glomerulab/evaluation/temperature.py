"""Temperature scaling: one number, fitted on validation, that makes confidence honest."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, log_softmax

from glomerulab.evaluation.calibration import SMALLEST, negative_log_likelihood
from glomerulab.evaluation.eval_set import EvalSet

__all__ = ["FEW_ERRORS", "MAX_TEMPERATURE", "fit_temperature", "with_temperature"]

MAX_TEMPERATURE = 100.0
"""Temperatures are sought from the inverse of this to this."""
FEW_ERRORS = 5
"""With fewer wrong answers the likeliest temperature is chance, or next to 0."""


def fit_temperature(validation: EvalSet) -> float:
    """Find the temperature under which the labels are most likely.

    Parameters
    ----------
    validation : Judged
        Images that the model was not trained on and that are not the judged ones.

    Returns
    -------
    float
        Above 1 the model was too sure of itself, below 1 not sure enough; from 0.01 to 100.

    Notes
    -----
    Guo et al. 2017, section 4.2. Probabilities are enough: their logarithms are the logits up to a
    constant, which softmax does not see.

    Ours, not theirs: where hardly an answer is wrong (fewer than `FEW_ERRORS`), the likeliest
    temperature is next to 0 and every probability 1. It is then not lowered further than to a mean
    confidence of (n_right + 1) / (n + 2), Laplace's estimate of how often such a model is right.
    """
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(with_temperature(validation, float(np.exp(log_t)))),
        bounds=(-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    likeliest = float(np.exp(found.x))
    right = _answers_right(validation)
    if int((~right).sum()) >= FEW_ERRORS:
        return likeliest
    most = (float(right.sum()) + 1) / (len(right) + 2)
    return max(likeliest, _temperature_of(validation, most))


def with_temperature(eval_set: EvalSet, temperature: float) -> EvalSet:
    """Return the same images with probabilities cooled or heated.

    Parameters
    ----------
    judged : Judged
    temperature : float
        Above 0. The order of the classes of an image does not change, so neither does accuracy
        under softmax; under sigmoid the call at 0.5 does not change either.

    Returns
    -------
    Judged

    Raises
    ------
    ValueError
        If `temperature` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    clipped = np.clip(eval_set.probabilities, SMALLEST, 1.0)
    if eval_set.head == "softmax":
        scaled = np.exp(log_softmax(np.log(clipped) / temperature, axis=1))
    else:
        logits = np.log(clipped) - np.log(np.clip(1.0 - eval_set.probabilities, SMALLEST, 1.0))
        scaled = expit(logits / temperature)
    return replace(eval_set, probabilities=scaled)


def _answers_right(eval_set: EvalSet) -> npt.NDArray[np.bool_]:
    """Say of each image (softmax) or each known label (sigmoid) whether it was called right."""
    if eval_set.head == "softmax":
        return np.asarray(eval_set.decision == eval_set.truth, dtype=np.bool_)
    known = ~np.isnan(eval_set.labels)
    return np.asarray((eval_set.calls == (eval_set.labels == 1))[known], dtype=np.bool_)


def _temperature_of(eval_set: EvalSet, confidence: float) -> float:
    """Find the temperature at which the model is that sure of itself on average."""
    known = ~np.isnan(eval_set.labels)

    def excess(log_t: float) -> float:
        p = with_temperature(eval_set, float(np.exp(log_t))).probabilities
        if eval_set.head == "softmax":
            return float(p.max(axis=1).mean()) - confidence
        return float(np.maximum(p, 1 - p)[known].mean()) - confidence

    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    if excess(low) <= 0:
        return MAX_TEMPERATURE**-1
    if excess(high) >= 0:
        return MAX_TEMPERATURE
    return float(np.exp(brentq(excess, low, high, xtol=1e-4)))
