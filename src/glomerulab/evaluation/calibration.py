"""Calibration: reliability, Brier score, ECE, slope and intercept, and temperature scaling."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, log_softmax
from scipy.stats import binomtest

from glomerulab.evaluation.eval_set import EvalSet

__all__ = [
    "CalibrationSummary",
    "fit_temperature",
    "reliability_bins",
    "reliability_curve",
    "top_confidence",
]

FloatArray = npt.NDArray[np.float64]
Binning = Literal["equal-width", "equal-mass"]

SMALLEST = 1e-12
"""Probabilities are clipped to this distance from 0 and 1, so that their logit is finite."""
MAX_NEWTON_STEPS = 50
MAX_COEFFICIENT = 1e3
"""Beyond it the two outcomes are separated and the likelihood has no maximum."""
MAX_TEMPERATURE = 100.0
"""Temperatures are searched from the inverse of this to this."""
IMAGES_PER_BIN = 10
MIN_BINS, MAX_BINS = 2, 10
"""Of the reliability diagram, which has as many bins as have `IMAGES_PER_BIN` images each."""
BANDWIDTH = 0.1
"""Of the smooth curve: standard deviation of its weights, as a probability."""
MIN_SMOOTHED = 20
"""Probabilities from which a smooth curve is drawn."""
N_SMOOTH_POINTS = 101
FEW_ERRORS = 5
"""With fewer errors, the most likely temperature is chance, or next to 0."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Predicted against observed frequency by bin, without empty bins."""

    confidence: FloatArray
    """Mean probability of each bin."""
    frequency: FloatArray
    """Share of positive outcomes in each bin."""
    count: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """Logistic relation of outcomes to logits; NaN where one outcome is absent.

    The slope is NaN too where the outcomes are separated, or all logits are the same.
    """

    slope: float
    """1 is calibrated; below 1 the probabilities are too extreme."""
    intercept: float
    """In the large, at slope 1: 0 is calibrated; below 0 the probabilities are too high."""


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """Every calibration measure of an `EvalSet`."""

    brier: float
    negative_log_likelihood: float
    ece_equal_width: float
    ece_equal_mass: float
    slope: float
    intercept: float


def calibration_summary(eval_set: EvalSet) -> CalibrationSummary:
    """Compute every calibration measure; ECE, slope and intercept are of `top_confidence`."""
    probability, outcome = top_confidence(eval_set)
    line = calibration_line(probability, outcome)
    width = reliability_bins(probability, outcome)
    mass = reliability_bins(probability, outcome, binning="equal-mass")
    return CalibrationSummary(
        brier=brier_score(eval_set),
        negative_log_likelihood=negative_log_likelihood(eval_set),
        ece_equal_width=expected_calibration_error(width),
        ece_equal_mass=expected_calibration_error(mass),
        slope=line.slope,
        intercept=line.intercept,
    )


def top_confidence(eval_set: EvalSet) -> tuple[FloatArray, FloatArray]:
    """Return the probabilities whose calibration is measured, and their outcomes, shape (m,).

    Under softmax the probability of each image's decision and whether it is correct; under
    sigmoid the probability of every known label and whether the label is present.
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
    """Bin probabilities and compare the mean of each bin with the observed frequency.

    Parameters
    ----------
    probability, outcome : ndarray of float, shape (m,)
        From 0 to 1; 1 or 0.
    n_bins : int, default 10
    binning : {"equal-width", "equal-mass"}, default "equal-width"
        Bins of equal width on 0 to 1, left-open as in Guo et al. 2017, or of an equal number of
        probabilities as far as it divides. scikit-learn's ``calibration_curve`` gives no counts,
        and its quantile bins split ties differently.

    Raises
    ------
    ValueError
        If there are no probabilities or `n_bins` is below 1.
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
    confidence = np.bincount(bin_of, probability, minlength=n_bins)[filled] / count[filled]
    frequency = np.bincount(bin_of, outcome, minlength=n_bins)[filled] / count[filled]
    return ReliabilityBins(confidence, frequency, count[filled])


@dataclass(frozen=True)
class ReliabilityCurve:
    """What a reliability diagram shows of one set of probabilities."""

    bins: ReliabilityBins
    """With an equal number of probabilities each."""
    low: FloatArray
    high: FloatArray
    """Ends of Wilson's 95 % interval of the frequency in each bin."""
    grid: FloatArray
    smooth: FloatArray
    """Frequency as a smooth function of the probability; empty of few probabilities."""


def reliability_curve(probability: FloatArray, outcome: FloatArray) -> ReliabilityCurve:
    """Compare probabilities with frequencies in equal-count bins and by a smooth curve.

    Parameters
    ----------
    probability, outcome : ndarray of float, shape (m,)
        From 0 to 1; 1 or 0.

    Notes
    -----
    The smooth curve is the mean of the outcomes, weighted by a Gaussian of the distance in
    probability (Nadaraya and Watson, 1964), between the smallest and the largest probability.
    """
    n_bins = int(np.clip(len(probability) // IMAGES_PER_BIN, MIN_BINS, MAX_BINS))
    bins = reliability_bins(probability, outcome, n_bins=n_bins, binning="equal-mass")
    hits = np.rint(bins.frequency * bins.count).astype(np.intp)
    ends = [
        binomtest(int(k), int(n)).proportion_ci(method="wilson")
        for k, n in zip(hits, bins.count, strict=True)
    ]
    grid = smooth = np.zeros(0)
    if len(probability) >= MIN_SMOOTHED:
        grid = np.linspace(probability.min(), probability.max(), N_SMOOTH_POINTS)
        apart = (grid[:, None] - probability[None, :]) / BANDWIDTH
        weights = np.exp(-0.5 * (apart**2 - (apart**2).min(axis=1, keepdims=True)))
        smooth = weights @ outcome / weights.sum(axis=1)
    low, high = (np.array([getattr(one, end) for one in ends]) for end in ("low", "high"))
    return ReliabilityCurve(bins, low, high, grid, smooth)


def expected_calibration_error(bins: ReliabilityBins) -> float:
    """Mean distance of confidence from frequency, weighted by bin size, 0 to 1."""
    gap = np.abs(bins.confidence - bins.frequency)
    return float(np.average(gap, weights=bins.count))


def brier_score(eval_set: EvalSet) -> float:
    """Mean squared distance of probabilities from labels.

    Under softmax summed over the classes, from 0 to 2 (Brier 1950); under sigmoid the mean over
    known labels, from 0 to 1.
    """
    squared = (eval_set.probabilities - eval_set.labels) ** 2
    if eval_set.head == "softmax":
        return float(squared.sum(axis=1).mean())
    return float(np.nanmean(squared))


def negative_log_likelihood(eval_set: EvalSet) -> float:
    """Mean negative log-likelihood of the known labels, natural logarithm, at least 0."""
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
    return CalibrationLine(slope=float(line[1]), intercept=_shift_at_slope_one(logit, outcome))


def fit_temperature(validation: EvalSet) -> float:
    """Return the temperature, from 0.01 to 100, under which the labels are most likely.

    Above 1 the model is overconfident, below 1 underconfident.

    Parameters
    ----------
    validation : EvalSet
        Images that are neither trained on nor evaluated.

    Notes
    -----
    Guo et al. 2017, section 4.2. Probabilities suffice: their logarithms are the logits up to a
    constant, which softmax does not see.

    Unlike theirs: with fewer than `FEW_ERRORS` errors, the most likely temperature is next to 0
    and every probability 1. It is then not lowered further than to a mean confidence of
    (n_right + 1) / (n + 2), Laplace's estimate of the accuracy.
    """
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(with_temperature(validation, float(np.exp(log_t)))),
        bounds=(-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    likeliest = float(np.exp(found.x))
    right = _correct_calls(validation)
    if int((~right).sum()) >= FEW_ERRORS:
        return likeliest
    most = (float(right.sum()) + 1) / (len(right) + 2)
    return max(likeliest, _temperature_of(validation, most))


def with_temperature(eval_set: EvalSet, temperature: float) -> EvalSet:
    """Return the same images with their logits divided by a temperature.

    The order of an image's classes, and under sigmoid the call at 0.5, stay the same.
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


def _correct_calls(eval_set: EvalSet) -> npt.NDArray[np.bool_]:
    """Whether each image (softmax) or each known label (sigmoid) is called correctly."""
    if eval_set.head == "softmax":
        return np.asarray(eval_set.decision == eval_set.truth, dtype=np.bool_)
    known = ~np.isnan(eval_set.labels)
    return np.asarray((eval_set.calls == (eval_set.labels == 1))[known], dtype=np.bool_)


def _shift_at_slope_one(logit: FloatArray, outcome: FloatArray) -> float:
    """Find the shift of all logits that makes the probabilities sum to the outcomes."""

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
        coefficients = _damped_step(design, outcome, coefficients, step)
        if np.abs(coefficients).max() > MAX_COEFFICIENT:
            return undefined
    return undefined


def _damped_step(
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


def _temperature_of(eval_set: EvalSet, confidence: float) -> float:
    """Find the temperature at which the mean confidence is `confidence`."""
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
