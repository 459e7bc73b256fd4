"""Intervals of a share that was counted, after Wilson."""

import math

from scipy.stats import norm

__all__ = ["wilson_interval"]


def wilson_interval(n_with: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a share.

    Parameters
    ----------
    n_with : int
        From 0 to `n`.
    n : int
        At least 1.
    level : float, default 0.95
        Between 0 and 1.

    Returns
    -------
    tuple of float
        Lower and upper end, from 0 to 1.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    The score interval [1]_, without continuity correction. It takes the glomeruli as independent
    draws; those of one patient resemble each other no less than the patient's whole kidney does.

    References
    ----------
    .. [1] Wilson EB, J Am Stat Assoc 22:209-212, 1927.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(4, 16)]
    [0.102, 0.495]
    """
    if not 0 <= n_with <= n or n < 1:
        raise ValueError(f"needs 0 <= n_with <= n and n >= 1, got {n_with} of {n}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    z = float(norm.ppf(0.5 + level / 2))
    share = n_with / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if n_with == 0 else (centre - spread) / (1 + z * z / n)
    high = 1.0 if n_with == n else (centre + spread) / (1 + z * z / n)
    return low, high
