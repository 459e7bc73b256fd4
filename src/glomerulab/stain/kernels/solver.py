"""Compiled core of the two-stain solver: passes over the pixels, and Newton steps between them.

Machine code on arrays, on one thread and without the interpreter's lock; arguments are checked by
`glomerulab.stain.separation`, which gives the derivation and the sources. Stain matrices are
transposed, (2, 3), so that a stain is a row. Newton steps are algebra on the moments of the pixels,
element by element, since whole-array expressions take numba seconds to compile.
"""

import math

import numpy as np

from glomerulab.runtime.jit import F32, F64, U8, Real, compiled, compiled_reordered
from glomerulab.stain.kernels.pixels import PixelTables, decode_tissue

# ruff: noqa: PLR0917 - a compiled function takes its arguments by place

N_MOMENTS = 10
"""Moments of a set of pixels: count, sum of v (3), sum of v vᵀ (6, upper triangle by rows)."""
MAX_PASSES = 60
FIRST_DAMPING = 1e-3
MIN_DAMPING = 1e-6
PRECISION = 3e-7  # of an objective that is summed in single precision within blocks
BLOCK_PX = 1024  # single-precision sums run over one block, then go to double precision


@compiled
def newton_step(
    moments: F64, stains: F64, sparsity: Real, damping: Real, candidate: F64
) -> tuple[float, float]:
    """Write the next stains to `candidate`; return the objective and the expected decrease.

    The objective excludes the constant ½Σ|v|². Components at zero that would become negative stay
    at zero.
    """
    full = np.empty((3, 4, 4))
    inverse = np.empty((3, 2, 2))
    coder = np.empty((3, 2, 4))
    squares = np.empty((3, 2, 2))
    gradient = np.zeros((2, 3))
    cosine = 0.0
    for c in range(3):
        cosine += stains[0, c] * stains[1, c]
    value = 0.0
    for which in range(3):
        _unpack(moments[which], full[which])
        _inverse_gram(which, cosine, inverse[which])
        value += _add_gradient(
            stains, sparsity, full[which], inverse[which], coder[which], squares[which], gradient
        )
    directions = np.zeros((4, 2, 3))
    n = _tangents(stains, gradient, directions)
    turned = np.zeros((n, 2, 3))
    for d in range(n):
        for which in range(3):
            _add_turned(
                stains,
                directions[d],
                full[which],
                inverse[which],
                coder[which],
                squares[which],
                turned[d],
            )
    slope, curvature = _reduce(stains, gradient, directions[:n], turned)
    step, decrease = _damped_solve(slope, curvature, damping)
    _retract(stains, directions[:n], step, candidate)
    return value, decrease


@compiled
def _unpack(row: F64, full: F64) -> None:
    """Lay the 10 moments out as the symmetric 4 x 4 sum of (v, 1)(v, 1)ᵀ."""
    full[0, 0], full[0, 1], full[0, 2], full[0, 3] = row[4], row[5], row[6], row[1]
    full[1, 0], full[1, 1], full[1, 2], full[1, 3] = row[5], row[7], row[8], row[2]
    full[2, 0], full[2, 1], full[2, 2], full[2, 3] = row[6], row[8], row[9], row[3]
    full[3, 0], full[3, 1], full[3, 2], full[3, 3] = row[1], row[2], row[3], row[0]


@compiled
def _matmul(left: F64, right: F64, out: F64) -> None:
    # A call of BLAS would cost more than these few products.
    for i in range(left.shape[0]):
        for j in range(right.shape[1]):
            total = 0.0
            for k in range(left.shape[1]):
                total += left[i, k] * right[k, j]
            out[i, j] = total


@compiled
def _inverse_gram(which: int, cosine: Real, inverse: F64) -> None:
    """Invert wᵀw on the active stains; zero where a stain is not active."""
    for i in range(2):
        for j in range(2):
            inverse[i, j] = 0.0
    if which == 2:
        factor = 1.0 / (1.0 - cosine * cosine)
        inverse[0, 0] = inverse[1, 1] = factor
        inverse[0, 1] = inverse[1, 0] = -cosine * factor
    else:
        inverse[which, which] = 1.0


@compiled
def _add_gradient(
    stains: F64, sparsity: Real, full: F64, inverse: F64, coder: F64, squares: F64, gradient: F64
) -> float:
    """Add one set's share of the gradient; return its share of the objective without ½|v|².

    Also fills `coder`, the P of h = P (v, 1), and `squares`, the sum of h hᵀ.
    """
    raw = np.empty((2, 4))  # wᵀv - λ = raw (v, 1)
    coded = np.empty((2, 4))  # sum of h (v, 1)ᵀ
    for k in range(2):
        for c in range(3):
            raw[k, c] = stains[k, c]
        raw[k, 3] = -sparsity
    _matmul(inverse, raw, coder)
    _matmul(coder, full, coded)
    _matmul(coded, coder.T, squares)
    value = 0.0
    for k in range(2):
        for j in range(4):
            value -= 0.5 * raw[k, j] * coded[k, j]
        for c in range(3):
            gradient[k, c] += (
                squares[k, 0] * stains[0, c] + squares[k, 1] * stains[1, c] - coded[k, c]
            )
    return value


@compiled
def _add_turned(
    stains: F64, turn: F64, full: F64, inverse: F64, coder: F64, squares: F64, turned: F64
) -> None:
    """Add one set's share of the derivative of the gradient along the direction `turn`."""
    gram = np.empty((2, 2))
    change = np.empty((2, 4))
    coder_turn = np.empty((2, 4))  # dP
    coded_turn = np.empty((2, 4))
    cross = np.empty((2, 2))
    _matmul(turn, stains.T, gram)
    _add_transpose(gram)
    _matmul(gram, coder, change)
    for k in range(2):
        for c in range(3):
            change[k, c] = turn[k, c] - change[k, c]
        change[k, 3] = -change[k, 3]
    _matmul(inverse, change, coder_turn)
    _matmul(coder_turn, full, coded_turn)
    _matmul(coded_turn, coder.T, cross)
    _add_transpose(cross)
    for k in range(2):
        for c in range(3):
            turned[k, c] += (
                squares[k, 0] * turn[0, c]
                + squares[k, 1] * turn[1, c]
                + cross[k, 0] * stains[0, c]
                + cross[k, 1] * stains[1, c]
                - coded_turn[k, c]
            )


@compiled
def _add_transpose(square: F64) -> None:
    mixed = square[0, 1] + square[1, 0]
    square[0, 0] *= 2.0
    square[1, 1] *= 2.0
    square[0, 1] = square[1, 0] = mixed


@compiled
def _tangents(stains: F64, gradient: F64, directions: F64) -> int:
    """Write an orthonormal basis of the feasible moves of each stain on its unit sphere."""
    n = 0
    held = np.empty((4, 3))  # rows a move must be orthogonal to
    for k in range(2):
        n_held = 1
        for c in range(3):
            held[0, c] = stains[k, c]
        for c in range(3):
            if stains[k, c] == 0.0 and gradient[k, c] >= 0.0:
                for other in range(3):
                    held[n_held, other] = 1.0 if other == c else 0.0
                n_held += 1
        for _ in range(3 - n_held):
            _orthogonal_to(held, n_held)
            for c in range(3):
                directions[n, k, c] = held[n_held, c]
            n_held += 1
            n += 1
    return n


@compiled
def _orthogonal_to(held: F64, n_held: int) -> None:
    """Write to row `n_held` a unit vector orthogonal to the rows before it."""
    trial = np.empty(3)
    best_norm = -1.0
    for axis in range(3):
        for c in range(3):
            trial[c] = 1.0 if c == axis else 0.0
        for _ in range(2):  # twice, against rounding
            for h in range(n_held):
                share = held[h, 0] * trial[0] + held[h, 1] * trial[1] + held[h, 2] * trial[2]
                for c in range(3):
                    trial[c] -= share * held[h, c]
        norm = math.sqrt(trial[0] ** 2 + trial[1] ** 2 + trial[2] ** 2)
        if norm > best_norm:
            best_norm = norm
            for c in range(3):
                held[n_held, c] = trial[c] / norm


@compiled
def _reduce(stains: F64, gradient: F64, directions: F64, turned: F64) -> tuple[F64, F64]:
    """Express gradient and Hessian in the tangent directions of the two unit spheres."""
    n = directions.shape[0]
    slope = np.zeros(n)
    curvature = np.zeros((n, n))
    for i in range(n):
        for k in range(2):
            radial = 0.0
            length = 0.0
            for c in range(3):
                slope[i] += gradient[k, c] * directions[i, k, c]
                radial += gradient[k, c] * stains[k, c]
                length += directions[i, k, c] ** 2
            # A unit vector that turns by ε also moves by ε²/2 towards the origin.
            curvature[i, i] -= radial * length
        for j in range(n):
            for k in range(2):
                for c in range(3):
                    curvature[i, j] += turned[i, k, c] * directions[j, k, c]
    return slope, curvature


@compiled
def _damped_solve(slope: F64, curvature: F64, damping: Real) -> tuple[F64, float]:
    """Solve (C + μI) step = -slope with the smallest tried μ >= `damping` that is definite."""
    n = slope.shape[0]
    scale = 1e-300
    for i in range(n):
        scale = max(scale, abs(curvature[i, i]))
    shift = damping * scale
    lower = np.zeros((n, n))
    while not _cholesky(curvature, shift, lower, 1e-10 * scale):
        shift = max(4.0 * shift, 1e-3 * scale)
    step = np.empty(n)
    for i in range(n):
        step[i] = -slope[i]
        for j in range(i):
            step[i] -= lower[i, j] * step[j]
        step[i] /= lower[i, i]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            step[i] -= lower[j, i] * step[j]
        step[i] /= lower[i, i]
    decrease = 0.0
    for i in range(n):
        decrease -= slope[i] * step[i]
        for j in range(n):
            decrease -= 0.5 * step[i] * curvature[i, j] * step[j]
    return step, decrease


@compiled
def _cholesky(matrix: F64, shift: Real, lower: F64, floor: Real) -> bool:
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            total = matrix[i, j] + (shift if i == j else 0.0)
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            if i == j:
                if total <= floor:
                    return False
                lower[i, i] = math.sqrt(total)
            else:
                lower[i, j] = total / lower[j, j]
    return True


@compiled
def _retract(stains: F64, directions: F64, step: F64, candidate: F64) -> None:
    """Take the step, clip negative components to 0, and normalise to unit length."""
    for k in range(2):
        norm = 0.0
        for c in range(3):
            moved = stains[k, c]
            for i in range(step.shape[0]):
                moved += step[i] * directions[i, k, c]
            candidate[k, c] = max(moved, 0.0)
            norm += candidate[k, c] ** 2
        for c in range(3):
            candidate[k, c] /= math.sqrt(norm)


@compiled
def sum_moments(
    red: F32, green: F32, blue: F32, stains: F64, sparsity: Real, moments: F64
) -> float:
    """Fill `moments` (3, 10) for the pixels of stain 1 alone, stain 2 alone, and both.

    The planes of optical density are separate, since only contiguous arrays are vectorised.
    `stains` is (2, 3). Returns the sum of squares, Σ|v|².
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
    pixels: U8, tables: PixelTables, stains: F64, sparsity: Real, moments: F64
) -> tuple[float, int]:
    """Sum moments as `sum_moments` does for the tissue among pixels (n, 3); return also its size.

    Optical density is computed block by block, which is faster than storing and loading it.
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
        n_tissue += decode_tissue(pixels[begin : begin + n], tables, brightness, density)
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
    """Take Newton steps until the expected relative decrease is below `expected`.

    `stains` (2, 3) are the start and become the result; the last step is taken unchecked. Moments
    are `offset` (3, 10) plus `scale` times those of the pixels, which extrapolates a sample to
    all pixels. Returns the objective there, without the share of `offset` in ½Σ|v|², and the
    number of passes over the pixels.
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
