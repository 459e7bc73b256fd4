"""Compiled core of the two-stain solver: passes over the pixels, and the steps between them.

Plain machine code on arrays, on one thread and without the interpreter's lock; checks, meaning
and sources stand in `glomerulab.stain.vahadane`. Stain matrices are transposed here, (2, 3), so
that a stain is a row.
"""

# ruff: noqa: PLR0917 - a compiled function takes its arguments by place

import numpy as np

from glomerulab.runtime.jit import F32, F64, U8, Real, compiled, compiled_reordered
from glomerulab.stain.kernels.newton import N_MOMENTS, newton_step
from glomerulab.stain.kernels.pixels import Light, decode_tissue

__all__ = ["descend", "sum_moments", "sum_tissue_moments"]

MAX_PASSES = 60
FIRST_DAMPING = 1e-3
MIN_DAMPING = 1e-6
PRECISION = 3e-7  # of an objective that is summed in single precision within blocks

BLOCK_PX = 1024  # single-precision sums run over one block, then go to double precision


@compiled
def sum_moments(
    red: F32, green: F32, blue: F32, stains: F64, sparsity: Real, moments: F64
) -> float:
    """Fill `moments` (3, 10) for the pixels of stain 1 alone, stain 2 alone, and both.

    The planes of optical density are apart since only arrays without gaps are worked on sixteen
    pixels at a time. `stains` is (2, 3). Returns the sum of squares, Σ|v|².
    """
    member = np.empty((3, BLOCK_PX), np.float32)
    stains32 = stains.astype(np.float32)
    sparsity32 = np.float32(sparsity)
    moments[:] = 0.0
    squares = 0.0
    for begin in range(0, red.shape[0], BLOCK_PX):
        end = min(begin + BLOCK_PX, red.shape[0])
        p, q, r = red[begin:end], green[begin:end], blue[begin:end]
        squares += _add_block(p, q, r, stains32, sparsity32, member, moments)
    return squares


@compiled
def sum_tissue_moments(
    pixels: U8, light: Light, stains: F64, sparsity: Real, moments: F64
) -> tuple[float, int]:
    """Do as `sum_moments` for the tissue among the pixels (n, 3); return also how many it are.

    Optical density is worked out block by block: writing that of millions of pixels down would
    take longer than finding it again.
    """
    density = np.empty((3, BLOCK_PX), np.float32)
    brightness = np.empty(BLOCK_PX, np.float32)
    member = np.empty((3, BLOCK_PX), np.float32)
    stains32 = stains.astype(np.float32)
    sparsity32 = np.float32(sparsity)
    moments[:] = 0.0
    squares: float = 0.0
    n_tissue = 0
    for begin in range(0, pixels.shape[0], BLOCK_PX):
        n = min(BLOCK_PX, pixels.shape[0] - begin)
        n_tissue += decode_tissue(pixels[begin : begin + n], light, brightness, density)
        p, q, r = density[0, :n], density[1, :n], density[2, :n]
        squares += _add_block(p, q, r, stains32, sparsity32, member, moments)
    return squares, n_tissue


@compiled
def descend(
    red: F32,
    green: F32,
    blue: F32,
    stains: F64,
    sparsity: Real,
    expected: Real,
    scale: Real,
    offset: F64,
) -> tuple[float, int]:
    """Newton steps until less than `expected`, relative, is to be gained by another.

    `stains` (2, 3) are the start and become the result; the last step is taken unseen. Moments
    are `offset` (3, 10) and `scale` times those of the pixels: of a sample, what stands for the
    rest. Returns the objective there, without the share of `offset` in ½Σ|v|², and the number of
    passes over the pixels.
    """
    moments, trial = np.empty((3, N_MOMENTS)), np.empty((3, N_MOMENTS))
    candidate, following = np.empty((2, 3)), np.empty((2, 3))
    damping = 0.0
    constant = 0.5 * scale * sum_moments(red, green, blue, stains, sparsity, moments)
    _scale_and_add(moments, scale, offset)
    value, decrease = newton_step(moments, stains, sparsity, damping, candidate)
    n_passes = 1
    while decrease > expected * (constant + value) and n_passes < MAX_PASSES:
        sum_moments(red, green, blue, candidate, sparsity, trial)
        _scale_and_add(trial, scale, offset)
        n_passes += 1
        relaxed = 0.0 if damping < MIN_DAMPING else 0.1 * damping
        reached, ahead = newton_step(trial, candidate, sparsity, relaxed, following)
        if reached <= value + PRECISION * (constant + value):
            _copy(candidate, stains)
            _copy(following, candidate)
            _copy(trial, moments)
            value, decrease, damping = reached, ahead, relaxed
        else:
            damping = max(10.0 * damping, FIRST_DAMPING)
            _, decrease = newton_step(moments, stains, sparsity, damping, candidate)
    _copy(candidate, stains)
    return float(constant + value - decrease), n_passes


@compiled
def _scale_and_add(moments: F64, scale: Real, offset: F64) -> None:
    for i in range(moments.shape[0]):
        for j in range(moments.shape[1]):
            moments[i, j] = scale * moments[i, j] + offset[i, j]


@compiled
def _copy(source: F64, target: F64) -> None:
    # Element by element: whole-array assignment takes numba seconds to compile.
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@compiled
def _add_block(
    red: F32, green: F32, blue: F32, stains: F32, sparsity: Real, member: F32, moments: F64
) -> float:
    _assign_sets(red, green, blue, stains, sparsity, member)
    for which in range(3):
        _add_moments(red, green, blue, member[which], moments[which])
    return float(_sum_squares(red, green, blue))


@compiled_reordered
def _sum_squares(red: F32, green: F32, blue: F32) -> Real:
    total = np.float32(0.0)
    for i in range(red.shape[0]):
        total += red[i] * red[i] + green[i] * green[i] + blue[i] * blue[i]
    return total


@compiled_reordered
def _assign_sets(red: F32, green: F32, blue: F32, stains: F32, sparsity: Real, member: F32) -> None:
    a0, a1, a2 = stains[0, 0], stains[0, 1], stains[0, 2]
    b0, b1, b2 = stains[1, 0], stains[1, 1], stains[1, 2]
    cosine = a0 * b0 + a1 * b1 + a2 * b2
    zero, one = np.float32(0.0), np.float32(1.0)
    only_first, only_second, both = member[0], member[1], member[2]
    for i in range(red.shape[0]):
        first = a0 * red[i] + a1 * green[i] + a2 * blue[i] - sparsity
        second = b0 * red[i] + b1 * green[i] + b2 * blue[i] - sparsity
        d1 = first - cosine * second
        d2 = second - cosine * first
        only_first[i] = one if (d2 <= zero) & (first > zero) else zero
        only_second[i] = one if (d1 <= zero) & (second > zero) else zero
        both[i] = one if (d1 > zero) & (d2 > zero) else zero


@compiled_reordered
def _add_moments(red: F32, green: F32, blue: F32, member: F32, row: F64) -> None:
    zero = np.float32(0.0)
    n = s0 = s1 = s2 = m00 = m01 = m02 = m11 = m12 = m22 = zero
    for i in range(red.shape[0]):
        k, p, q, r = member[i], red[i], green[i], blue[i]
        kp, kq, kr = k * p, k * q, k * r
        n += k
        s0 += kp
        s1 += kq
        s2 += kr
        m00 += kp * p
        m01 += kp * q
        m02 += kp * r
        m11 += kq * q
        m12 += kq * r
        m22 += kr * r
    row[0] += n
    row[1] += s0
    row[2] += s1
    row[3] += s2
    row[4] += m00
    row[5] += m01
    row[6] += m02
    row[7] += m11
    row[8] += m12
    row[9] += m22
