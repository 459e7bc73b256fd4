"""Run-length masks of COCO, compressed or not, as outlines."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from shapely import Polygon, contains_xy
from skimage.measure import find_contours

from glomerulab.errors import RegionError
from glomerulab.geometry import Point
from glomerulab.slides.regions.features import Part

__all__ = ["MaskReader"]

MAX_IMAGE_PIXELS = 2**40
MAX_PIXELS = 16_000_000
"""Of the box around one mask, which is drawn at twice its size."""

MAX_FILE_PIXELS = 400_000_000
"""Of the boxes around all masks of a file."""

Runs = npt.NDArray[np.int64]


class MaskReader:
    """Draw the masks of one file, up to `MAX_FILE_PIXELS`."""

    def __init__(self) -> None:
        self._n_drawn = 0

    def parts(
        self, mask: Mapping[str, Any], place: str
    ) -> tuple[tuple[Part, ...], tuple[float, float]]:
        """Return the outlines of a mask, and the width and height of its image.

        Raises
        ------
        RegionError
            If the mask is malformed, empty, or too large.
        """
        height, width = _size(mask, place)
        runs = _runs(mask.get("counts"), place)
        if int(runs.sum()) != height * width or runs.min(initial=0) < 0:
            raise _not_runs(height, width, place)
        ends = np.cumsum(runs)
        starts, stops = ends[:-1:2][: len(ends) // 2], ends[1::2]
        starts, stops = starts[stops > starts], stops[stops > starts]
        if not len(starts):
            raise RegionError(f"{place}: its mask is empty")
        left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
        top, bottom = 0, height
        if np.all(starts // height == (stops - 1) // height):
            top, bottom = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
        columns, rows = right - left, bottom - top
        self._n_drawn += columns * rows
        if columns * rows > MAX_PIXELS or self._n_drawn > MAX_FILE_PIXELS:
            raise RegionError(
                f"{place}: its mask fills a box of {columns} x {rows} pixels, which is too large, "
                "or the masks of the file are together; export polygons"
            )
        # Where a run reaches into the next column, the cut has all rows: places stay in order.
        first, last = (
            (place_of // height - left) * rows + place_of % height - top
            for place_of in (starts, stops - 1)
        )
        steps = np.zeros(columns * rows + 1, np.int8)
        np.add.at(steps, first, 1)
        np.add.at(steps, last + 1, -1)
        cut = np.cumsum(steps[:-1], dtype=np.int8).reshape(columns, rows).T
        return _outlines(cut, left, top), (float(width), float(height))


def _size(mask: Mapping[str, Any], place: str) -> tuple[int, int]:
    size = mask.get("size") or ()
    if not isinstance(size, list) or [type(side) for side in size] != [int, int] or min(size) < 1:
        raise RegionError(f"{place}: its mask has no size [height, width]")
    height, width = size
    if height * width > MAX_IMAGE_PIXELS:
        raise RegionError(
            f"{place}: its mask of {width} x {height} pixels is too large; export polygons"
        )
    return height, width


def _runs(counts: object, place: str) -> Runs:
    """Return the lengths of runs, of zeros and ones in turn, down the columns."""
    invalid = RegionError(f"{place}: the counts of its mask are not run lengths")
    if isinstance(counts, list):
        if any(type(n) is not int or not 0 <= n <= MAX_IMAGE_PIXELS for n in counts):
            raise invalid
        return np.array(counts, np.int64)
    if not isinstance(counts, str | bytes):
        raise invalid
    try:
        return _decompressed(counts.encode("ascii") if isinstance(counts, str) else counts)
    except ValueError as error:
        raise invalid from error


def _decompressed(text: bytes) -> Runs:
    """Return the runs of COCO's text: groups of five bits, lowest first, as differences."""
    letters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(letters) or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("not a text of runs")
    ends = np.flatnonzero(letters & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 8:
        raise ValueError("a run of more than 45 bits")
    shifts = 5 * (np.arange(len(letters)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((letters & 31) << shifts, starts)
    is_negative = letters[ends] & 16 != 0
    values -= np.where(is_negative, np.int64(1) << (shifts[ends] + 5), 0)
    # From the fourth, each stands as its difference to the one before the last.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0 or runs.max() > MAX_IMAGE_PIXELS:
        raise ValueError("a run outside the image")
    return runs


def _not_runs(height: int, width: int, place: str) -> RegionError:
    return RegionError(f"{place}: its mask is not run lengths of {width} x {height} pixels")


def _outlines(cut: npt.NDArray[np.int8], left: int, top: int) -> tuple[Part, ...]:
    # Contours run through pixel centres; drawn twice as large, they follow the pixels' edges.
    doubled = np.pad(cut.repeat(2, axis=0).repeat(2, axis=1), 1).astype(np.float32)
    contours = find_contours(  # type: ignore[no-untyped-call]
        doubled, 0.5, positive_orientation="high"
    )
    rings = [
        tuple((left + (x - 0.5) / 2, top + (y - 0.5) / 2) for y, x in contour[:-1].tolist())
        for contour in contours
    ]
    is_outer = [_is_outer(contour) for contour in contours]
    outer = [ring for ring, is_out in zip(rings, is_outer, strict=True) if is_out]
    holes: list[list[tuple[Point, ...]]] = [[] for _ in outer]
    areas = [Polygon(ring) for ring in outer]
    for ring, is_out in zip(rings, is_outer, strict=True):
        if not is_out:
            inside = [n for n, area in enumerate(areas) if contains_xy(area, *ring[0])]
            holes[min(inside, key=lambda n: areas[n].area)].append(ring)
    return tuple(Part(ring, tuple(of)) for ring, of in zip(outer, holes, strict=True))


def _is_outer(contour: npt.NDArray[np.float64]) -> bool:
    """Return whether a contour surrounds its pixels, rather than a hole in them."""
    y, x = contour.T
    return bool(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) < 0)
