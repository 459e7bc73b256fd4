"""Whether a probability of 0.8 is right eight times in ten."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from glomerulab.evaluation.judged import Judged

__all__ = [
    "Binning",
    "ReliabilityBins",
    "brier_score",
    "expected_calibration_error",
    "reliability_bins",
    "top_confidence",
]

FloatArray = npt.NDArray[np.float64]
Binning = Literal["equal-width", "equal-mass"]


@dataclass(frozen=True)
class ReliabilityBins:
    """What was said and what came true, bin by bin; empty bins are left out."""

    confidence: FloatArray
    """Mean probability in each bin."""
    frequency: FloatArray
    """Share that came true in each bin."""
    count: npt.NDArray[np.intp]


def top_confidence(judged: Judged) -> tuple[FloatArray, FloatArray]:
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
    if judged.head == "softmax":
        top = judged.probabilities.max(axis=1)
        return top, (judged.decision == judged.truth).astype(np.float64)
    known = ~np.isnan(judged.labels)
    return judged.probabilities[known], judged.labels[known]


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


def brier_score(judged: Judged) -> float:
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
    squared = (judged.probabilities - judged.labels) ** 2
    if judged.head == "softmax":
        return float(squared.sum(axis=1).mean())
    return float(np.nanmean(squared))
