"""Read a box of a slide at any sampling: choose the level, then resize smoothly.

Samplings are downsamples relative to level 0; micrometres are left to `glomerulab.slides.slide`.
Memory is bounded by the output and by `MAX_READ_PX`, not by the slide.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from glomerulab.geometry import Box
from glomerulab.images import MAX_PIXELS, RgbImage
from glomerulab.slides.sources import PixelSource

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

SAME_SAMPLING = 1e-3
"""Samplings that differ by less than this share are equal: scanners are calibrated no finer."""

LANCZOS_LOBES = 3
REDUCING_GAP = 2.0
"""Blocks are averaged until this much downsampling is left to the Lanczos filter."""

MAX_READ_PX = 16_000_000
"""Above this number of pixels a level is read in strips, each averaged at once."""


@dataclass(frozen=True, slots=True)
class _Span:
    """One axis of a read: its start in level-0 pixels, and its length in level pixels."""

    corner: int
    length: int
    start: float
    """Start of the wanted part, in level pixels from `corner`."""
    stop: float


@dataclass(frozen=True, slots=True)
class _Frame:
    """A part of the slide in level-0 pixels, its edges between pixels."""

    left: float
    upper: float
    width: float
    height: float


def best_level(downsamples: tuple[float, ...], wanted: float) -> int:
    """Return the coarsest level that is not coarser than wanted; level 0 if all are.

    Examples
    --------
    >>> best_level((1.0, 4.0, 16.0), 8.0)
    1
    """
    fine_enough = [
        level for level, own in enumerate(downsamples) if own <= wanted * (1 + SAME_SAMPLING)
    ]
    return max(fine_enough, default=0)


def read_box(
    source: PixelSource,
    box: Box,
    *,
    downsample: tuple[float, float],
    background: Callable[[], Colour],
) -> RgbImage:
    """Read a box of a slide at any sampling.

    Parameters
    ----------
    box : Box
        In level-0 pixels; may reach beyond the slide.
    downsample : tuple of float
        Wanted level-0 pixels per output pixel, along x and y.
    background : callable
        Returns the colour under transparent pixels and outside the slide; called only if needed.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        H and W are the box divided by `downsample`, rounded, at least 1.

    Raises
    ------
    ValueError
        If the output would exceed `glomerulab.images.MAX_PIXELS`.

    Notes
    -----
    Where a level has the wanted sampling, its pixels are returned unaltered. Otherwise the next
    finer level is resized with a Lanczos filter, as OpenSlide's own thumbnails are, with real
    pixels around the box under the filter's tails. Reads above `MAX_READ_PX` are first averaged in
    blocks of full pixels.
    """
    size = (
        max(1, round(box.width / downsample[0])),
        max(1, round(box.height / downsample[1])),
    )
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(
            f"the image would have {size[0]} x {size[1]} pixels at this sampling, "
            f"{MAX_PIXELS:,} are allowed"
        )
    level = _same_level(source, downsample)
    if level is not None:
        pixels = _on_background(source.read(level, (box.x, box.y), size), background)
        return np.asarray(pixels)
    step = (box.width / size[0], box.height / size[1])  # level-0 pixels per output pixel
    return _in_tiles(source, (box.x, box.y), size, step, background)


def read_grid(
    source: PixelSource,
    corner: tuple[float, float],
    size: tuple[int, int],
    *,
    downsample: tuple[float, float],
    background: Callable[[], Colour],
) -> RgbImage:
    """Read pixels of a grid whose steps are no whole numbers of level-0 pixels.

    Parts of one grid fit together, whereas boxes are rounded to level-0 pixels.

    Parameters
    ----------
    corner : tuple of float
        Upper left corner (x, y) in level-0 pixels.
    size : tuple of int
        Width and height in pixels of the grid.
    downsample : tuple of float
        Level-0 pixels per pixel of the grid, along x and y.
    background : callable
        As for `read_box`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    level = _same_level(source, downsample)
    if level is not None:
        own = source.level_downsamples[level]
        x, y = (round(round(value / own) * own) for value in corner)
        return np.asarray(_on_background(source.read(level, (x, y), size), background))
    return _in_tiles(source, corner, size, downsample, background)


def _same_level(source: PixelSource, downsample: tuple[float, float]) -> int | None:
    """Return the level that has this sampling."""
    level = best_level(source.level_downsamples, min(downsample))
    own = source.level_downsamples[level]
    is_same = all(abs(wanted / own - 1) < SAME_SAMPLING for wanted in downsample)
    return level if is_same else None


def _in_tiles(
    source: PixelSource,
    corner: tuple[float, float],
    size: tuple[int, int],
    step: tuple[float, float],
    background: Callable[[], Colour],
) -> RgbImage:
    """Resample in tiles that need no large reads; `step` is in level-0 pixels per pixel."""
    level = best_level(source.level_downsamples, min(step))
    own = source.level_downsamples[level]
    side = _tile_side(size, (step[0] / own, step[1] / own))
    if side >= max(size):
        frame = _Frame(*corner, size[0] * step[0], size[1] * step[1])
        return _resampled(source, level, frame, size, background)
    out = np.empty((size[1], size[0], 3), np.uint8)
    for upper in range(0, size[1], side):
        for left in range(0, size[0], side):
            width, height = min(side, size[0] - left), min(side, size[1] - upper)
            frame = _Frame(
                corner[0] + left * step[0],
                corner[1] + upper * step[1],
                width * step[0],
                height * step[1],
            )
            out[upper : upper + height, left : left + width] = _resampled(
                source, level, frame, (width, height), background
            )
    return out


def _tile_side(size: tuple[int, int], scales: tuple[float, float]) -> int:
    """Return the side of the output tiles for which no read need exceed `MAX_READ_PX`."""
    n_read = size[0] * size[1] * scales[0] * scales[1]
    if n_read <= MAX_READ_PX or min(scales) >= 2 * REDUCING_GAP:
        return max(size)  # small, or read in blocks
    return max(1, math.floor(math.isqrt(MAX_READ_PX) / max(scales)))


def _resampled(
    source: PixelSource,
    level: int,
    frame: _Frame,
    size: tuple[int, int],
    background: Callable[[], Colour],
) -> RgbImage:
    """Read the pixels under a frame with those around it, and resize them to `size`."""
    own = source.level_downsamples[level]
    widths, heights = zip(source.level_dimensions[0], source.level_dimensions[level], strict=True)
    steps = (frame.width / size[0], frame.height / size[1])
    across = _span(frame.left, frame.width, steps[0], own, widths)
    down = _span(frame.upper, frame.height, steps[1], own, heights)
    factor = _block_factor(across, down, min(steps) / own)
    pixels = _read_reduced(source, level, across, down, factor=factor, background=background)
    wanted_part = (
        across.start / factor,
        down.start / factor,
        min(across.stop / factor, pixels.width),
        min(down.stop / factor, pixels.height),
    )
    return np.asarray(pixels.resize(size, Image.Resampling.LANCZOS, box=wanted_part))


def _span(
    start: float, length: float, wanted: float, own: float, extents: tuple[int, int]
) -> _Span:
    """Widen one axis of the box by the filter's tails, but not beyond the slide.

    `extents` are the lengths of level 0 and of the level along this axis.
    """
    tail = LANCZOS_LOBES * max(wanted / own, 1.0) + 1
    first, last = start / own, (start + length) / own
    corner = math.floor(math.floor(min(first, max(first - tail, 0.0))) * own)
    origin = corner / own
    reach = max(last, min(last + tail, float(extents[1])))
    count = max(1, math.ceil(reach - origin))
    if start + length <= extents[0]:
        # A level's size is rounded: do not read a sliver of background past its last column.
        count = max(1, min(count, round(extents[1] - origin)))
    return _Span(corner, count, first - origin, min(last - origin, float(count)))


def _block_factor(across: _Span, down: _Span, scale: float) -> int:
    if across.length * down.length <= MAX_READ_PX:
        return 1
    return max(1, math.floor(scale / REDUCING_GAP))


def _read_reduced(
    source: PixelSource,
    level: int,
    across: _Span,
    down: _Span,
    *,
    factor: int,
    background: Callable[[], Colour],
) -> Image.Image:
    """Read a part of a level, averaged over blocks of `factor` squared, in tiles if it is large."""
    if factor == 1:
        pixels = source.read(level, (across.corner, down.corner), (across.length, down.length))
        return _on_background(pixels, background)
    own = source.level_downsamples[level]
    size = (math.ceil(across.length / factor), math.ceil(down.length / factor))
    reduced = Image.new("RGB", size)
    side = max(1, math.isqrt(MAX_READ_PX) // factor)  # of a tile, in reduced pixels
    for row in range(0, size[1], side):
        for column in range(0, size[0], side):
            corner = (
                across.corner + round(column * factor * own),
                down.corner + round(row * factor * own),
            )
            length = (
                min(side * factor, across.length - column * factor),
                min(side * factor, down.length - row * factor),
            )
            tile = _on_background(source.read(level, corner, length), background)
            reduced.paste(tile.reduce(factor), (column, row))
    return reduced


def _on_background(pixels: Image.Image, background: Callable[[], Colour]) -> Image.Image:
    """Return RGBA pixels as RGB, the background showing through."""
    if pixels.getchannel("A").getextrema() == (255, 255):
        return pixels.convert("RGB")
    opaque = Image.new("RGBA", pixels.size, (*background(), 255))
    opaque.alpha_composite(pixels)
    return opaque.convert("RGB")
