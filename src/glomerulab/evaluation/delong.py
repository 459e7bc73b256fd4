"""DeLong's variance of ROC areas, for observations that are independent of each other.

Images of one patient are not: reports use the bootstrap over patients, and give DeLong beside it
only where every patient has a single image.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

__all__ = ["DeLongArea", "DeLongDifference", "delong_area", "delong_difference"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DeLongArea:
    """One area with its standard error and interval."""

    auc: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DeLongDifference:
    """Two areas on the same observations."""

    difference: float
    """First minus second."""
    standard_error: float
    z: float
    p_value: float
    """Two-sided; 1 where the two never differ."""


def delong_area(labels: FloatArray, scores: FloatArray, *, level: float = 0.95) -> DeLongArea:
    """Compute a ROC area and its interval.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1 or 0, at least two of each.
    scores : ndarray of float, shape (n,)
        Higher means more likely 1.
    level : float, default 0.95

    Returns
    -------
    DeLongArea
        Ends are cut at 0 and 1.

    Raises
    ------
    ValueError
        If there are fewer than two of either kind.

    Notes
    -----
    DeLong, DeLong & Clarke-Pearson 1988; placements from mid-ranks as in Sun & Xu 2014, so the cost
    is that of sorting.
    """
    areas, covariance = _areas_and_covariance(labels, scores[None, :])
    error = float(np.sqrt(covariance[0, 0]))
    reach = float(norm.ppf(0.5 + level / 2.0)) * error
    auc = float(areas[0])
    return DeLongArea(auc, error, max(0.0, auc - reach), min(1.0, auc + reach))


def delong_difference(
    labels: FloatArray, first: FloatArray, second: FloatArray
) -> DeLongDifference:
    """Test whether two models rank the same observations equally well.

    Parameters
    ----------
    labels, first, second : ndarray of float, shape (n,)
        As for `delong_area`; the scores of two models.

    Returns
    -------
    DeLongDifference

    Raises
    ------
    ValueError
        If there are fewer than two of either kind.
    """
    areas, covariance = _areas_and_covariance(labels, np.stack([first, second]))
    difference = float(areas[0] - areas[1])
    contrast = np.array([1.0, -1.0])
    error = float(np.sqrt(max(0.0, contrast @ covariance @ contrast)))
    if error == 0.0:
        same = difference == 0.0
        z = 0.0 if same else float(np.copysign(np.inf, difference))
        return DeLongDifference(difference, 0.0, z, 1.0 if same else 0.0)
    z = difference / error
    return DeLongDifference(difference, error, z, float(2.0 * norm.sf(abs(z))))


def _areas_and_covariance(labels: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Areas (M,) and their covariance (M, M) of M models' scores (M, n)."""
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        raise ValueError(
            f"need at least two of either kind, got {n_positive} positive, {n_negative} negative"
        )
    among_all = rankdata(scores, axis=1)
    # For each positive the share of negatives below it, and for each negative the reverse.
    below = (among_all[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative
    above = 1.0 - (among_all[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive
    areas = below.mean(axis=1)
    covariance = np.cov(below) / n_positive + np.cov(above) / n_negative
    return areas, np.atleast_2d(covariance)
