"""Macenko's two-stain separation: the extreme directions of the cloud of optical densities.

A named alternative to `glomerulab.stain.vahadane`, and the place its solver starts from.
"""

import numpy as np
import numpy.typing as npt

from glomerulab.errors import StainError
from glomerulab.stain.optical_density import FloatArray

__all__ = ["ANGLE_PERCENTILE", "even_sample", "macenko_stains"]

ANGLE_PERCENTILE = 1.0
"""Per cent of the pixels beyond each extreme direction."""

MAX_SAMPLE_PX = 1 << 18


def macenko_stains(
    density: npt.NDArray[np.float32], *, percentile: float = ANGLE_PERCENTILE
) -> FloatArray:
    """Estimate the stain matrix from the plane of the two largest principal components.

    Parameters
    ----------
    density : ndarray of float32, shape (3, n)
        Optical density of tissue pixels; of more than 262,144 an even sample is taken.
    percentile : float, default `ANGLE_PERCENTILE`
        Robust minimum and maximum of the angle in that plane, in (0, 50).

    Returns
    -------
    ndarray of float64, shape (3, 2)
        Columns non-negative with unit norm, higher red first.

    Raises
    ------
    StainError
        If the pixels do not span a plane, as in a picture of one colour.

    Notes
    -----
    [1]_, algorithm 1: principal plane of the optical densities, extreme angles in it, back to
    three channels. Ours: the natural logarithm (a factor that unit norm removes) and negative
    components set to zero.

    References
    ----------
    .. [1] Macenko et al., A method for normalizing histology slides for quantitative analysis,
       ISBI 2009.
    """
    sample = even_sample(density, MAX_SAMPLE_PX).astype(np.float64)  # (3, m)
    if sample.shape[1] < 3:
        raise StainError("too few tissue pixels to separate stains")
    centred = sample - sample.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(centred @ centred.T / sample.shape[1])
    if spread[1] <= 1e-12:
        raise StainError("all tissue has one colour: two stains cannot be told apart")
    plane = axes[:, [2, 1]]  # (3, 2), largest first
    if plane[:, 0].sum() < 0:
        plane[:, 0] = -plane[:, 0]
    along, across = plane.T @ sample
    angles = np.sort(np.arctan2(across, along))
    beyond = round(percentile / 100.0 * (len(angles) - 1))
    low, high = angles[beyond], angles[-1 - beyond]
    extremes = plane @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    extremes = np.maximum(extremes, 0.0)
    norms = np.linalg.norm(extremes, axis=0)
    if np.any(norms <= 1e-9):
        raise StainError("tissue colours lie outside what two absorbing stains can make")
    stains: FloatArray = extremes / norms
    return stains if stains[0, 0] >= stains[0, 1] else stains[:, ::-1].copy()


def even_sample(density: npt.NDArray[np.float32], n_px: int) -> npt.NDArray[np.float32]:
    """Return at most `n_px` of the pixels, evenly spaced: no randomness, the same every time.

    Parameters
    ----------
    density : ndarray of float32, shape (3, n)
    n_px : int

    Returns
    -------
    ndarray of float32, shape (3, m)
        m is at most `n_px`.
    """
    step = -(-density.shape[1] // n_px)
    # Odd, since JPEG repeats itself every eight pixels.
    return np.ascontiguousarray(density[:, :: step | 1 if step > 1 else 1])
