"""Whether a probability of 0.8 is right eight times in ten."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import expit

from glomerulab.evaluation.eval_set import EvalSet

__all__ = [
    "SMALLEST",
    "Binning",
    "CalibrationLine",
    "CalibrationSummary",
    "ReliabilityBins",
    "brier_score",
    "calibration_line",
    "calibration_summary",
    "expected_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
    "top_confidence",
]

FloatArray = npt.NDArray[np.float64]
Binning = Literal["equal-width", "equal-mass"]

SMALLEST = 1e-12
"""Probabilities nearer to 0 or 1 count as this, so that their logit is finite."""
MAX_NEWTON_STEPS = 50
MAX_COEFFICIENT = 1e3
"""Beyond it the two outcomes are separated and the likelihood has no maximum."""


@dataclass(frozen=True)
class ReliabilityBins:
    """What was said and what came true, bin by bin; empty bins are left out."""

    confidence: FloatArray
    """Mean probability in each bin."""
    frequency: FloatArray
    """Share that came true in each bin."""
    count: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """How logits relate to outcomes; NaN where one outcome is absent.

    The slope is NaN too where the two outcomes are separated, or all logits are the same.
    """

    slope: float
    """1 is right; below 1 the probabilities are too extreme."""
    intercept: float
    """In the large, at slope 1: 0 is right; below 0 the probabilities are too high."""


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """How honest the probabilities of a part are."""

    brier: float
    negative_log_likelihood: float
    ece_equal_width: float
    ece_equal_mass: float
    slope: float
    intercept: float


def calibration_summary(eval_set: EvalSet, *, n_bins: int = 10) -> CalibrationSummary:
    """Compute every calibration number of a part.

    Parameters
    ----------
    judged : Judged
    n_bins : int, default 10
        Of the expected calibration errors.

    Returns
    -------
    CalibrationSummary
        Errors, slope and intercept are those of `top_confidence`.
    """
    probability, outcome = top_confidence(eval_set)
    line = calibration_line(probability, outcome)
    width = reliability_bins(probability, outcome, n_bins=n_bins)
    mass = reliability_bins(probability, outcome, n_bins=n_bins, binning="equal-mass")
    return CalibrationSummary(
        brier=brier_score(eval_set),
        negative_log_likelihood=negative_log_likelihood(eval_set),
        ece_equal_width=expected_calibration_error(width),
        ece_equal_mass=expected_calibration_error(mass),
        slope=line.slope,
        intercept=line.intercept,
    )


def top_confidence(eval_set: EvalSet) -> tuple[FloatArray, FloatArray]:
    """Return what calibration is asked of.

    Parameters
    ----------
    judged : Judged

    Returns
    -------
    probability, outcome : ndarray of float64, shape (m,)
        Under softmax the probability of each image's decision and whether it was right; under
        sigmoid every known label's probability and whether the label is there.
    """
    if eval_set.head == "softmax":
        top = eval_set.probabilities.max(axis=1)
        return top, (eval_set.decision == eval_set.truth).astype(np.float64)
    known = ~np.isnan(eval_set.labels)
    return eval_set.probabilities[known], eval_set.labels[known]


def reliability_bins(
    probability: FloatArray,
    outcome: FloatArray,
    *,
    n_bins: int = 10,
    binning: Binning = "equal-width",
) -> ReliabilityBins:
    """Group probabilities into bins and compare each with what came true.

    Parameters
    ----------
    probability, outcome : ndarray of float, shape (m,)
        From 0 to 1; 1 or 0.
    n_bins : int, default 10
    binning : {"equal-width", "equal-mass"}, default "equal-width"
        Bins of the same width on 0 to 1, left-open as in Guo et al. 2017, or of the same number of
        probabilities as far as it divides.

    Returns
    -------
    ReliabilityBins

    Raises
    ------
    ValueError
        If there is nothing to bin or `n_bins` is below 1.
    """
    if n_bins < 1 or len(probability) == 0:
        raise ValueError(f"need bins and probabilities, got {n_bins} and {len(probability)}")
    if binning == "equal-width":
        bin_of = np.clip(np.ceil(probability * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    else:
        rank = np.argsort(np.argsort(probability, kind="stable"), kind="stable")
        bin_of = rank * n_bins // len(probability)
    count = np.bincount(bin_of, minlength=n_bins)
    filled = count > 0
    said = np.bincount(bin_of, probability, minlength=n_bins)[filled] / count[filled]
    came = np.bincount(bin_of, outcome, minlength=n_bins)[filled] / count[filled]
    return ReliabilityBins(said, came, count[filled])


def expected_calibration_error(bins: ReliabilityBins) -> float:
    """Mean distance between what was said and what came true, weighted by bin size, 0 to 1."""
    gap = np.abs(bins.confidence - bins.frequency)
    return float(np.average(gap, weights=bins.count))


def brier_score(eval_set: EvalSet) -> float:
    """Mean squared distance of probabilities from labels.

    Parameters
    ----------
    judged : Judged

    Returns
    -------
    float
        Under softmax summed over the classes, from 0 to 2 (Brier 1950); under sigmoid the mean
        over known labels, from 0 to 1.
    """
    squared = (eval_set.probabilities - eval_set.labels) ** 2
    if eval_set.head == "softmax":
        return float(squared.sum(axis=1).mean())
    return float(np.nanmean(squared))


def negative_log_likelihood(eval_set: EvalSet) -> float:
    """Return the mean negative log-likelihood of the known labels, natural logarithm, >= 0."""
    positive, negative = eval_set.labels == 1, eval_set.labels == 0
    log_p = np.log(np.clip(eval_set.probabilities, SMALLEST, 1.0))
    if eval_set.head == "softmax":
        return float(-log_p[positive].mean())
    log_not = np.log(np.clip(1.0 - eval_set.probabilities, SMALLEST, 1.0))
    return float(-np.concatenate([log_p[positive], log_not[negative]]).mean())


def calibration_line(probability: FloatArray, outcome: FloatArray) -> CalibrationLine:
    """Fit the logistic calibration slope and the calibration in the large.

    Parameters
    ----------
    probability, outcome : ndarray of float, shape (m,)
        From 0 to 1; 1 or 0.

    Returns
    -------
    CalibrationLine

    Notes
    -----
    Cox 1958; Van Calster et al. 2019. The slope is that of a logistic regression of the outcome on
    the logit; the intercept is fitted by itself with the slope held at 1.
    """
    if len(np.unique(outcome)) < 2:
        return CalibrationLine(float("nan"), float("nan"))
    clipped = np.clip(probability, SMALLEST, 1.0 - SMALLEST)
    logit = np.log(clipped) - np.log1p(-clipped)
    line = _logistic_fit(np.stack([np.ones_like(logit), logit], axis=1), outcome)
    return CalibrationLine(slope=float(line[1]), intercept=_level(logit, outcome))


def _level(logit: FloatArray, outcome: FloatArray) -> float:
    """Find the shift of all logits that makes the probabilities add up to the outcomes."""

    def excess(shift: float) -> float:
        return float(np.sum(expit(logit + shift) - outcome))

    reach = float(np.abs(logit).max()) + np.log(len(logit)) + 1.0
    return float(brentq(excess, -reach, reach, xtol=1e-10))


def _logistic_fit(design: FloatArray, outcome: FloatArray) -> FloatArray:
    """Maximise the likelihood by Newton's method; NaN where it has no maximum."""
    coefficients = np.zeros(design.shape[1])
    undefined = np.full_like(coefficients, np.nan)
    for _ in range(MAX_NEWTON_STEPS):
        expected = expit(design @ coefficients)
        weight = expected * (1.0 - expected)
        curvature = design.T @ (weight[:, None] * design)
        if np.linalg.cond(curvature) > 1.0 / np.finfo(float).eps:
            return undefined
        step = np.linalg.solve(curvature, design.T @ (outcome - expected))
        if np.abs(step).max() < 1e-10:
            return coefficients
        coefficients = _no_worse(design, outcome, coefficients, step)
        if np.abs(coefficients).max() > MAX_COEFFICIENT:
            return undefined
    return undefined


def _no_worse(
    design: FloatArray, outcome: FloatArray, coefficients: FloatArray, step: FloatArray
) -> FloatArray:
    """Take the step, or as large a part of it as does not lower the likelihood."""

    def loss(at: FloatArray) -> float:
        score = design @ at
        return float(np.sum(np.logaddexp(0.0, score) - outcome * score))

    here = loss(coefficients)
    while loss(coefficients + step) > here + 1e-9 and np.abs(step).max() > 1e-10:
        step = step / 2.0
    return coefficients + step
