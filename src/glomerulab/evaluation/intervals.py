"""Intervals by resampling patients, since images of one patient are not independent."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "MIN_DEFINED_SHARE",
    "MIN_RESAMPLES",
    "Interval",
    "patient_weights",
    "percentile_interval",
]

MIN_RESAMPLES = 2000
"""Fewer make the ends of a 95 % interval visibly random."""

MIN_DEFINED_SHARE = 0.8
"""Below this share of resamples in which a score exists, its interval is not given: too few
patients carry what it is about."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends, and how many of the resamples they rest on; NaN ends mean "not defined"."""

    low: float
    high: float
    defined_share: float


def patient_weights(n_patients: int, *, n_resamples: int, seed: int) -> npt.NDArray[np.float64]:
    """Draw how often each patient stands in each resample.

    Parameters
    ----------
    n_patients : int
        At least 1.
    n_resamples : int
        At least `MIN_RESAMPLES`.
    seed : int

    Returns
    -------
    ndarray of float64, shape (n_resamples, n_patients)
        Whole numbers; every row sums to `n_patients`.

    Raises
    ------
    ValueError
        If either number is too small.
    """
    if n_patients < 1:
        raise ValueError(f"n_patients must be at least 1, got {n_patients}")
    if n_resamples < MIN_RESAMPLES:
        raise ValueError(f"n_resamples must be at least {MIN_RESAMPLES}, got {n_resamples}")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n_patients, size=(n_resamples, n_patients))
    drawn += np.arange(n_resamples)[:, None] * n_patients
    counts = np.bincount(drawn.ravel(), minlength=n_resamples * n_patients)
    return counts.reshape(n_resamples, n_patients).astype(np.float64)


def percentile_interval(resampled: npt.NDArray[np.float64], *, level: float = 0.95) -> Interval:
    """Take the middle share of the resampled values of one score.

    Parameters
    ----------
    resampled : ndarray of float, shape (R,)
        NaN where the score is not defined in a resample.
    level : float, default 0.95
        Between 0 and 1.

    Returns
    -------
    Interval
        With NaN ends where all resamples are one and the same patient's, or too few are defined.

    Raises
    ------
    ValueError
        If `level` is not between 0 and 1.

    Notes
    -----
    Efron 1979, percentile method, on clusters. With few patients it is too narrow: the report says
    so.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    defined = resampled[~np.isnan(resampled)]
    share = len(defined) / len(resampled)
    if share < MIN_DEFINED_SHARE:
        return Interval(np.nan, np.nan, share)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Interval(float(low), float(high), share)
