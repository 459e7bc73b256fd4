"""Compiled passes over the pixels: tissue, concentrations, their percentiles, and new colours.

Machine code on arrays, on one thread and without the interpreter's lock; arguments are checked by
the callers. Stain matrices are transposed, (2, 3), so that a stain is a row; tables of optical
density are (3, 256).
"""

# ruff: noqa: PLR0917 - a compiled function takes its arguments by place

import math

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from glomerulab.runtime.jit import (
    F32,
    F64,
    I32,
    I64,
    U8,
    U32,
    Flags,
    Real,
    compiled,
    compiled_reordered,
)

Reals = F32 | F64
PixelTables = tuple[F32, F32, F32]
"""Float32 tables by grey level. Luminance, (2, 3, 256): share of each channel in the luminance of a
pixel, and in its luminance relative to white. Limits, (2,): black up to the first, in luminance;
glass from the second, in relative luminance. Optical density, (3, 256)."""

BLOCK_PX = 1024
N_BINS = 8192
HIGHEST_AMOUNT = 10.0  # black in every channel is 9.6
# exp(-x) on [0, 1], Chebyshev interpolation of degree 6, within 1e-7 in single precision; an
# exponent of up to 8 is divided by 8 and the result squared three times.
EXP_SERIES = tuple(
    np.float32(c)
    for c in Chebyshev.interpolate(lambda x: np.exp(-x), 6, domain=[0.0, 1.0])
    .convert(kind=Polynomial)
    .coef
)


@compiled
def channel_histograms(pixels: U8, dimmest: int, brightest: int, counts: I64) -> None:
    """Count red, green, blue and brightness of the pixels (n, 3) from `dimmest` to `brightest`.

    `counts` is int64 (4, 256); brightness is (R + 2 G + B) / 4, a whole number.
    """
    counts[:] = 0
    for i in range(pixels.shape[0]):
        r, g, b = np.int64(pixels[i, 0]), np.int64(pixels[i, 1]), np.int64(pixels[i, 2])
        brightness = (r + 2 * g + b) >> 2
        if dimmest <= brightness <= brightest:
            counts[0, r] += 1
            counts[1, g] += 1
            counts[2, b] += 1
            counts[3, brightness] += 1


@compiled
def brightest_peak(brightness: I64, lowest: int, min_seen: Real, drop: Real, chance: Real) -> int:
    """Return the level of the brightest peak of a histogram (256,), or -1 without a peak.

    The histogram is smoothed by (1, 2, 3, 2, 1) / 9. From white down to `lowest`, a maximum is a
    peak if the histogram then falls by the share `drop` and by more than `chance` times the
    square root of its height, after `min_seen` pixels.
    """
    place, height, seen = -1, 0.0, 0
    for level in range(255, lowest - 1, -1):
        seen += brightness[level]
        smooth = 3.0 * brightness[level]
        for away in range(1, 3):
            weight = 3.0 - away
            smooth += weight * brightness[level - away] if level >= away else 0.0
            smooth += weight * brightness[level + away] if level + away < 256 else 0.0
        smooth /= 9.0
        if smooth > height:
            place, height = level, smooth
        elif seen >= min_seen and height - smooth > max(drop * height, chance * math.sqrt(height)):
            return place
    return -1


@compiled
def mark_tissue(pixels: U8, tables: PixelTables, mask: Flags) -> None:
    """Set `mask` (n,) where the pixels (n, 3) are neither black nor glass."""
    luminance, limits, _ = tables
    own, relative = luminance[0], luminance[1]
    for i in range(pixels.shape[0]):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        dark = own[0, r] + own[1, g] + own[2, b] <= limits[0]
        bright = relative[0, r] + relative[1, g] + relative[2, b] >= limits[1]
        mask[i] = (not dark) & (not bright)


@compiled
def gather_tissue(pixels: U8, tables: PixelTables, od: F32) -> int:
    """Write the optical density of tissue pixels to `od` (3, n) in order; return their number."""
    luminance, limits, table = tables
    own, relative = luminance[0], luminance[1]
    lowest, highest = limits
    red, green, blue = relative[0], relative[1], relative[2]
    table_red, table_green, table_blue = table[0], table[1], table[2]
    out_red, out_green, out_blue = od[0], od[1], od[2]
    suspect = _first_light_green(own, lowest)
    n = 0
    for i in range(pixels.shape[0]):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        if red[r] + green[g] + blue[b] >= highest:
            continue
        if g < suspect and own[0, r] + own[1, g] + own[2, b] <= lowest:
            continue
        out_red[n], out_green[n], out_blue[n] = table_red[r], table_green[g], table_blue[b]
        n += 1
    return n


@compiled
def decode_tissue(pixels: U8, tables: PixelTables, brightness: F32, od: F32) -> int:
    """Write the optical density of the pixels (n, 3) to `od` (3, >= n), 0 where there is no tissue.

    Returns the number of tissue pixels. Zeros belong to no stain and add to no sum; keeping them is
    cheaper than compaction. `brightness` (>= n,) is scratch memory.
    """
    luminance, limits, table = tables
    own, relative = luminance[0], luminance[1]
    lowest, highest = limits
    red, green, blue = relative[0], relative[1], relative[2]
    od_red, od_green, od_blue = od[0], od[1], od[2]
    table_red, table_green, table_blue = table[0], table[1], table[2]
    for i in range(pixels.shape[0]):
        r, g, b = pixels[i, 0], pixels[i, 1], pixels[i, 2]
        od_red[i], od_green[i], od_blue[i] = table_red[r], table_green[g], table_blue[b]
        brightness[i] = red[r] + green[g] + blue[b]
    # Black is rare, and testing each pixel takes as long as all the rest: test the block by green.
    darkest = max(_first_light_green(own, lowest) - 1, 0)
    if _n_at_least(od_green[: pixels.shape[0]], table_green[darkest]) > 0:
        for i in range(pixels.shape[0]):
            if own[0, pixels[i, 0]] + own[1, pixels[i, 1]] + own[2, pixels[i, 2]] <= lowest:
                brightness[i] = highest
    n = pixels.shape[0]
    return _clear_glass(brightness[:n], highest, od_red[:n], od_green[:n], od_blue[:n])


@compiled
def _first_light_green(own: F32, lowest: Real) -> int:
    """Return the lowest green level at which no pixel is black, whatever its red and blue."""
    level = 0
    while level < 256 and own[1, level] <= lowest:
        level += 1
    return level


@compiled_reordered
def _n_at_least(values: F32, lowest: Real) -> int:
    n, one, zero = np.float32(0.0), np.float32(1.0), np.float32(0.0)
    for i in range(values.shape[0]):
        n += one if values[i] >= lowest else zero
    return int(n)


@compiled_reordered
def _clear_glass(brightness: F32, highest: Real, red: F32, green: F32, blue: F32) -> int:
    n, one, zero = np.float32(0.0), np.float32(1.0), np.float32(0.0)
    for i in range(brightness.shape[0]):
        weight = one if brightness[i] < highest else zero
        red[i] *= weight
        green[i] *= weight
        blue[i] *= weight
        n += weight
    return int(n)


@compiled_reordered
def sparse_code(
    red: Reals,
    green: Reals,
    blue: Reals,
    stains: Reals,
    sparsity: Real,
    first: Reals,
    second: Reals,
) -> None:
    """Write the exact sparse concentrations of two stains; arrays of one length, one precision."""
    a0, a1, a2 = stains[0, 0], stains[0, 1], stains[0, 2]
    b0, b1, b2 = stains[1, 0], stains[1, 1], stains[1, 2]
    cosine = a0 * b0 + a1 * b1 + a2 * b2
    # In the precision of the arguments: one double would turn the loop into double precision.
    zero, one = stains.dtype.type(0.0), stains.dtype.type(1.0)
    factor = one / (one - cosine * cosine)
    for i in range(red.shape[0]):
        p = a0 * red[i] + a1 * green[i] + a2 * blue[i] - sparsity
        q = b0 * red[i] + b1 * green[i] + b2 * blue[i] - sparsity
        d1 = p - cosine * q
        d2 = q - cosine * p
        # The amount is the projection without the other stain, the joint solution with it.
        first[i] = max(p if d2 <= zero else d1 * factor, zero)
        second[i] = max(q if d1 <= zero else d2 * factor, zero)


@compiled
def concentration_percentiles(
    red: F32, green: F32, blue: F32, stains: F64, sparsity: Real, share: Real, found: F64
) -> None:
    """Write to `found` (2,) the amount of each stain below which `share` of the pixels lie.

    From a histogram of 8,192 bins up to 10, within half a bin.
    """
    counts = np.zeros((2, 2, N_BINS), np.int32)
    amounts = np.empty((2, BLOCK_PX), np.float32)
    bins = np.empty((2, BLOCK_PX), np.int32)
    stains32 = stains.astype(np.float32)
    sparsity32 = np.float32(sparsity)
    per_unit = np.float32(N_BINS / HIGHEST_AMOUNT)
    last = np.float32(N_BINS - 1)
    for begin in range(0, red.shape[0], BLOCK_PX):
        end = min(begin + BLOCK_PX, red.shape[0])
        p, q, r = red[begin:end], green[begin:end], blue[begin:end]
        sparse_code(p, q, r, stains32, sparsity32, amounts[0], amounts[1])
        for k in range(2):
            _to_bins(amounts[k], per_unit, last, bins[k])
            # Two tables in turn: two successive additions to one bin would stall.
            for i in range(0, end - begin - 1, 2):
                counts[k, 0, bins[k, i]] += 1
                counts[k, 1, bins[k, i + 1]] += 1
            if (end - begin) % 2 == 1:
                counts[k, 0, bins[k, end - begin - 1]] += 1
    for k in range(2):
        found[k] = _upper_place(counts[k], (1.0 - share) * red.shape[0]) / per_unit


@compiled
def _upper_place(counts: I32, n_above: Real) -> float:
    """Return the place in bins, with a fraction, above which `n_above` of the counts lie."""
    above = 0
    for place in range(N_BINS - 1, -1, -1):
        here = counts[0, place] + counts[1, place]
        if above + here >= n_above and here > 0:
            return float(place + 1.0 - (n_above - above) / here)
        above += here
    return 0.0


@compiled_reordered
def _to_bins(amounts: F32, per_unit: Real, last: Real, bins: I32) -> None:
    for i in range(amounts.shape[0]):
        bins[i] = np.int32(min(amounts[i] * per_unit, last))


@compiled
def recolour(
    pixels: U8,
    table: F32,
    stains: F64,
    sparsity: Real,
    gains: F64,
    new_stains: F64,
    white: F64,
    out: U8,
    words: U32,
) -> None:
    """Write the pixels (n, 3) with other stains, amounts and white to `out` (n, 3).

    `words` is the memory of `out` as 32-bit words, up to the last group of four pixels.
    """
    od = np.empty((3, BLOCK_PX), np.float32)
    amounts = np.empty((2, BLOCK_PX), np.float32)
    packed = np.empty(BLOCK_PX, np.uint32)
    stains32 = stains.astype(np.float32)
    weights = np.empty((2, 3), np.float32)
    for k in range(2):
        for c in range(3):
            weights[k, c] = gains[k] * new_stains[k, c] / 8.0
    white32 = white.astype(np.float32)
    sparsity32 = np.float32(sparsity)
    for begin in range(0, pixels.shape[0], BLOCK_PX):
        n = min(BLOCK_PX, pixels.shape[0] - begin)
        part = pixels[begin : begin + n]
        for i in range(n):
            od[0, i] = table[0, part[i, 0]]
            od[1, i] = table[1, part[i, 1]]
            od[2, i] = table[2, part[i, 2]]
        sparse_code(od[0], od[1], od[2], stains32, sparsity32, amounts[0], amounts[1])
        _transmit(amounts[0], amounts[1], weights, white32, packed)
        _store(packed[: n - n % 4], words[3 * begin // 4 :])
        for i in range(n - n % 4, n):
            for c in range(3):
                out[begin + i, c] = (packed[i] >> np.uint32(8 * c)) & np.uint32(255)


@compiled_reordered
def _transmit(first: F32, second: F32, weights: F32, white: F32, packed: U32) -> None:
    """Write round(white · exp(-8·(weights · amounts))), red in the lowest byte of each word.

    255·exp(-8) rounds to 0, so that the exponent stops there.
    """
    one, half = np.float32(1.0), np.float32(0.5)
    c0, c1, c2, c3, c4, c5, c6 = EXP_SERIES
    a0, a1, a2 = weights[0, 0], weights[0, 1], weights[0, 2]
    b0, b1, b2 = weights[1, 0], weights[1, 1], weights[1, 2]
    red, green, blue = white[0], white[1], white[2]
    for i in range(first.shape[0]):
        p, q = first[i], second[i]
        x = min(a0 * p + b0 * q, one)
        y = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * c6)))))  # exp(-x)
        y *= y
        y *= y
        y *= y
        r = np.int32(red * y + half)
        x = min(a1 * p + b1 * q, one)
        y = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * c6)))))
        y *= y
        y *= y
        y *= y
        g = np.int32(green * y + half)
        x = min(a2 * p + b2 * q, one)
        y = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * c6)))))
        y *= y
        y *= y
        y *= y
        b = np.int32(blue * y + half)
        packed[i] = np.uint32(r | (g << np.int32(8)) | (b << np.int32(16)))


@compiled
def _store(packed: U32, words: U32) -> None:
    """Pack four words of three bytes each into three words of four bytes."""
    for j in range(packed.shape[0] // 4):
        p, q = packed[4 * j], packed[4 * j + 1]
        r, s = packed[4 * j + 2], packed[4 * j + 3]
        words[3 * j] = p | (q << np.uint32(24))
        words[3 * j + 1] = (q >> np.uint32(8)) | (r << np.uint32(16))
        words[3 * j + 2] = (r >> np.uint32(16)) | (s << np.uint32(8))
