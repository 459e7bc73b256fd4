"""Bootstrap intervals over patients, since images of one patient are not independent."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

__all__ = [
    "BOOTSTRAP",
    "MARK",
    "MIN_RESAMPLES",
    "RULE_OF_THREE",
    "Interval",
    "mean_interval",
    "patient_weights",
    "percentile_interval",
    "rule_of_three",
    "unseen_share",
]

FloatArray = npt.NDArray[np.float64]

MIN_RESAMPLES = 2000
"""Fewer make the ends of a 95 % interval visibly random."""
MIN_DEFINED_SHARE = 0.8
"""Least share of resamples in which a score must be defined for its interval to be defined."""
NO_WIDTH = 1e-9
"""Rounding alone moves the areas of resamples by less."""

BOOTSTRAP = "bootstrap"
RULE_OF_THREE = "rule of three"
"""How an interval was computed."""
MARK = "†"
"""Stands after an interval by the rule of three, wherever one is shown."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends, NaN where not defined."""

    low: float
    high: float
    defined_share: float
    """Share of the resamples in which the score is defined."""
    method: str = BOOTSTRAP
    """`RULE_OF_THREE` where the bootstrap gave no width."""


def patient_weights(n_patients: int, *, n_resamples: int, seed: int) -> FloatArray:
    """Draw how often each patient occurs in each resample.

    Parameters
    ----------
    n_patients : int
        At least 1.
    n_resamples : int
        At least `MIN_RESAMPLES`.

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


def unseen_share(n_patients: float) -> float:
    """Return the share of patients that may be unlike all `n_patients` seen, by the rule of three.

    Notes
    -----
    Hanley & Lippman-Hand 1983: what occurred in none of n patients may, with 95 % confidence, occur
    in up to 3 / n of them.
    """
    return min(1.0, 3.0 / n_patients) if n_patients > 0 else 1.0


def rule_of_three(
    value: float, unseen: float, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Return the interval of a score that is the same in every resample.

    Up to the share `unseen` of patients may be unlike those evaluated, with the worst or the best
    score. For a proportion of 0 or 1 this is the rule of three.

    Parameters
    ----------
    value : float
        Within `bounds`.
    unseen : float
        See `unseen_share`, from 0 to 1.
    bounds : tuple of float, default (0.0, 1.0)
        The worst and the best score.
    """
    worst, best = bounds
    low, high = value - unseen * (value - worst), value + unseen * (best - value)
    return Interval(low, high, 1.0, RULE_OF_THREE)


def percentile_interval(
    resampled: FloatArray,
    *,
    unseen: float,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of the resampled values of one score.

    Where the percentiles are equal, the `rule_of_three` takes their place, since an interval
    without width would claim certainty.

    Parameters
    ----------
    resampled : ndarray of float, shape (R,)
        NaN where the score is not defined in a resample.
    unseen : float
        `unseen_share` of the patients that the score rests on.
    bounds : tuple of float, default (0.0, 1.0)
        The worst and the best score.
    level : float, default 0.95
        Strictly between 0 and 1.

    Returns
    -------
    Interval
        Not defined where fewer than `MIN_DEFINED_SHARE` of the values are.

    Raises
    ------
    ValueError
        If `level` is out of range.

    Notes
    -----
    Efron 1979, percentile method, on clusters. With few patients it is too narrow; reports warn.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    defined = resampled[~np.isnan(resampled)]
    share = len(defined) / len(resampled)
    if share < MIN_DEFINED_SHARE:
        return Interval(np.nan, np.nan, share)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    if high - low < NO_WIDTH:
        return replace(rule_of_three(float(low), unseen, bounds=bounds), defined_share=share)
    return Interval(float(low), float(high), share)


def mean_interval(
    values: npt.NDArray[np.float64 | np.bool_],
    patients: npt.NDArray[np.intp],
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the 95 % interval of a mean over images, resampling patients; NaN with one patient.

    Parameters
    ----------
    values : ndarray of float or bool, shape (n,)
    patients : ndarray of int, shape (n,)
    bounds : tuple of float, default (0.0, 1.0)
        Of a single value.
    """
    _, patients = np.unique(patients, return_inverse=True)
    n_patients = int(patients.max()) + 1
    if n_patients < 2:
        return Interval(float("nan"), float("nan"), 0.0)
    weights = patient_weights(n_patients, n_resamples=n_resamples, seed=seed)
    totals = weights @ np.bincount(patients, weights=values)
    counts = weights @ np.bincount(patients).astype(np.float64)
    return percentile_interval(totals / counts, unseen=unseen_share(n_patients), bounds=bounds)
