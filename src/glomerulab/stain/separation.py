"""Two-stain separation by Macenko's and by Vahadane's method.

Macenko's method takes the extreme directions of the cloud of optical densities. Vahadane's finds
non-negative factors with sparse amounts, here by an exact solver: with two stains the amounts of a
pixel have a closed form, and the stain matrix has four unknowns, so Newton's method needs a handful
of passes over the pixels. It starts from Macenko's stains. There is no randomness: the same pixels
give the same result.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glomerulab.errors import StainError
from glomerulab.stain.kernels.pixels import sparse_code
from glomerulab.stain.kernels.solver import (
    N_MOMENTS,
    descend,
    newton_step,
    sum_moments,
    sum_tissue_moments,
)
from glomerulab.stain.optical_density import FloatArray, Tissue

__all__ = ["objective", "solve", "solve_tissue"]

ANGLE_PERCENTILE = 1.0
"""Per cent of the pixels beyond each extreme direction."""

MAX_SAMPLE_PX = 1 << 18
START_SAMPLE_PX = 512
FIRST_SAMPLE_PX = 4096
SAMPLE_GROWTH = 8
# Relative decreases of the objective that are expected of one more step.
EXPECTED_DECREASE = 1e-7  # that step is then taken unchecked; it leaves about 100 times the square
CLOSE_DECREASE = 1e-8  # where a pass costs little
ROUGH_DECREASE = 1e-6  # enough on a sample, whose optimum is not that of all pixels
MAX_SAMPLED_PASSES = 5
MIN_SEPARATION_COSINE = 0.9999995  # 0.06 degrees: beyond it the amounts of two stains explode


def macenko_stains(density: npt.NDArray[np.float32]) -> FloatArray:
    """Estimate the stain matrix from the plane of the two largest principal components.

    Parameters
    ----------
    density : ndarray of float32, shape (3, n)
        Optical density of tissue pixels; of more than 262,144 an even sample is taken.

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
        raise StainError("there are too few tissue pixels to separate two stains")
    centred = sample - sample.mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(centred @ centred.T / sample.shape[1])
    if spread[1] <= 1e-12:
        raise StainError("all tissue has one colour; two stains cannot be separated")
    plane = axes[:, [2, 1]]  # (3, 2), largest first
    if plane[:, 0].sum() < 0:
        plane[:, 0] = -plane[:, 0]
    along, across = plane.T @ sample
    angles = np.sort(np.arctan2(across, along))
    beyond = round(ANGLE_PERCENTILE / 100.0 * (len(angles) - 1))
    low, high = angles[beyond], angles[-1 - beyond]
    extremes = plane @ np.array([[np.cos(low), np.cos(high)], [np.sin(low), np.sin(high)]])
    extremes = np.maximum(extremes, 0.0)
    norms = np.linalg.norm(extremes, axis=0)
    if np.any(norms <= 1e-9):
        raise StainError("two absorbing stains cannot produce the colours of the tissue")
    stains: FloatArray = extremes / norms
    return stains if stains[0, 0] >= stains[0, 1] else stains[:, ::-1].copy()


def even_sample(density: npt.NDArray[np.float32], n_px: int) -> npt.NDArray[np.float32]:
    """Return at most `n_px` evenly spaced pixels of an array of shape (3, n)."""
    step = -(-density.shape[1] // n_px)
    # Odd: JPEG blocks are eight pixels wide.
    return np.ascontiguousarray(density[:, :: step | 1 if step > 1 else 1])


@dataclass(frozen=True)
class Factorisation:
    """The optimal two stains and their objective."""

    stain_matrix: FloatArray
    """Shape (3, 2), columns non-negative with unit norm, higher red first."""
    objective: float
    """Eq. (9) at the solution, summed over the pixels."""
    n_passes: int
    """Number of passes over all pixels; 60 is the limit."""
    n_px: int
    """Number of pixels."""


def solve(
    density: npt.NDArray[np.float32], *, sparsity: float, start: FloatArray | None = None
) -> Factorisation:
    r"""Minimise the paper's eq. (9) over the stain matrix, with optimal amounts throughout.

    Parameters
    ----------
    density : ndarray of float32, shape (3, n)
        Optical density of tissue pixels, at least 0.
    sparsity : float
        λ of eq. (9), at least 0, in units of optical density.
    start : ndarray of float, shape (3, 2), optional
        Initial stains, columns non-negative; never changed. By default Macenko's stains of an even
        sample of the pixels.

    Raises
    ------
    StainError
        If the two stains coincide.

    Notes
    -----
    [1]_ eq. (9): :math:`\min \frac12 \|V - WH\|_F^2 + \lambda \sum_j \|H_{j,:}\|_1`, W, H at least
    0, the columns of W of unit norm. For a given W the best h of a pixel is linear in v on each of
    four sets (no stain, the first, the second, both), :math:`h = P\,(v, 1)`. The sums of
    :math:`(v, 1)(v, 1)^T` over the sets therefore give objective, gradient and Hessian of the
    four unknowns without storing H. Pixels change sets as W moves, so this is a semismooth Newton
    method, damped where it does not descend. Ours, not the paper's: the solver; the paper
    alternates between W and H.

    References
    ----------
    .. [1] The paper's eq. (9), after Vahadane et al., IEEE Trans. Med. Imaging 35(8), 2016.
    """
    stains = _start(density) if start is None else np.array(start.T, dtype=np.float64, order="C")
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    value, n_passes = _descend(density, stains, sparsity, EXPECTED_DECREASE)
    return _factorisation(stains, value, n_passes, density.shape[1])


def solve_tissue(tissue: Tissue, *, sparsity: float) -> Factorisation:
    """Solve as `solve` does for all tissue of an image, without storing its density.

    Notes
    -----
    A pass over all pixels costs most. It is made at the optimum of the sample, W₀, and gives the
    moments M(W₀). Those at a W nearby are M(W₀) + N/n (m(W) - m(W₀)), with m those of the n
    sampled pixels: only the few that change sets between W₀ and W are estimated, from those of the
    sample that do. If W₀ was too far off for that, another pass follows; after five, `solve` takes
    the density of all pixels.
    """
    if tissue.pixels is None:
        return solve(tissue.density, sparsity=sparsity)
    red, green, blue = tissue.density
    stains = _start(tissue.density)
    _descend(tissue.density, stains, sparsity, ROUGH_DECREASE)
    full, part = np.empty((3, N_MOMENTS)), np.empty((3, N_MOMENTS))
    for n_passes in range(1, MAX_SAMPLED_PASSES + 1):
        squares, n_px = sum_tissue_moments(tissue.pixels, tissue.tables, stains, sparsity, full)
        value, decrease = newton_step(full, stains, sparsity, 0.0, np.empty((2, 3)))
        value += 0.5 * squares
        is_far = decrease > EXPECTED_DECREASE * value
        sum_moments(red, green, blue, stains, sparsity, part)
        scale = n_px / len(red)
        rest = full - scale * part
        descend(red, green, blue, stains, sparsity, CLOSE_DECREASE, scale, rest)
        if not is_far:
            return _factorisation(stains, value - decrease, n_passes, n_px)
    # The sample is not representative, for example if it coincides with a pattern: use all pixels.
    found = solve(tissue.full_density(), sparsity=sparsity)
    return replace(found, n_passes=MAX_SAMPLED_PASSES + found.n_passes)


def _start(density: npt.NDArray[np.float32]) -> FloatArray:
    return np.ascontiguousarray(macenko_stains(even_sample(density, START_SAMPLE_PX)).T)


def _descend(
    density: npt.NDArray[np.float32], stains: FloatArray, sparsity: float, expected: float
) -> tuple[float, int]:
    """Bring `stains` to the optimum of ever larger samples, then of all pixels."""
    nothing = np.zeros((3, N_MOMENTS))
    sample_px = FIRST_SAMPLE_PX
    while 2 * sample_px < density.shape[1]:
        red, green, blue = even_sample(density, sample_px)
        descend(red, green, blue, stains, sparsity, ROUGH_DECREASE, 1.0, nothing)
        sample_px *= SAMPLE_GROWTH
    red, green, blue = density
    return descend(red, green, blue, stains, sparsity, expected, 1.0, nothing)


def _factorisation(stains: FloatArray, value: float, n_passes: int, n_px: int) -> Factorisation:
    # Written so that NaN, which almost constant pixels can give, is rejected as well: compiled code
    # would turn it into an index outside of its tables.
    if not float(stains[0] @ stains[1]) <= MIN_SEPARATION_COSINE:
        raise StainError("the pixels hold only one stain; two cannot be separated")
    order = [0, 1] if stains[0, 0] >= stains[1, 0] else [1, 0]
    return Factorisation(np.ascontiguousarray(stains[order].T), value, n_passes, n_px)


def concentrations(density: FloatArray, stain_matrix: FloatArray, *, sparsity: float) -> FloatArray:
    """Return the exact minimiser of eq. (9) over the amounts, for a given stain matrix.

    Parameters
    ----------
    density : ndarray of float, shape (..., 3)
        Optical density.
    stain_matrix : ndarray of float, shape (3, 2)
        Columns of unit norm.
    sparsity : float
        λ of eq. (9), at least 0.

    Returns
    -------
    ndarray of float64, shape (..., 2)
        Amount of each stain, at least 0.
    """
    planes = np.ascontiguousarray(np.moveaxis(density, -1, 0), dtype=np.float64).reshape(3, -1)
    amounts = np.empty((2, planes.shape[1]))
    stains = np.ascontiguousarray(stain_matrix.T, dtype=np.float64)
    sparse_code(planes[0], planes[1], planes[2], stains, float(sparsity), amounts[0], amounts[1])
    return np.ascontiguousarray(amounts.T).reshape(*density.shape[:-1], 2)


def objective(density: FloatArray, stain_matrix: FloatArray, *, sparsity: float) -> float:
    """Return eq. (9) for a stain matrix and its best amounts, in double precision.

    Parameters
    ----------
    density : ndarray of float, shape (..., 3)
        Optical density.
    stain_matrix : ndarray of float, shape (3, 2)
        Columns of unit norm.
    sparsity : float
        λ of eq. (9), at least 0.
    """
    amounts = concentrations(density, stain_matrix, sparsity=sparsity)
    residual = density - amounts @ stain_matrix.T
    return float(0.5 * np.sum(residual**2) + sparsity * np.sum(amounts))
