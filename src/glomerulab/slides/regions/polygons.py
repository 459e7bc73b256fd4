"""Area, repair and pixels of outlines in level-0 pixels."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from shapely import LinearRing, Polygon, contains_xy, get_parts, make_valid

from glomerulab.errors import RegionError
from glomerulab.geometry import Point
from glomerulab.runtime.jit import F64, Flags, compiled

__all__ = ["Rings", "area", "contains", "filled", "mended", "rings_of"]

Rings = tuple[tuple[Point, ...], tuple[tuple[Point, ...], ...]]
"""An outline and its holes."""
LARGEST_SHARE = 0.95
"""Of the area that a crossing outline bounds; the rest are loops left by the hand."""


def area(outline: Sequence[Point]) -> float:
    """Return the area of an outline, in square pixels."""
    return float(Polygon(outline).area)


def contains(outline: Sequence[Point], points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which points lie inside an outline that may cross itself (even-odd rule).

    Parameters
    ----------
    points : array_like of float, shape (n, 2)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T
    inside: npt.NDArray[np.bool_] = contains_xy(Polygon(outline), x, y)
    return inside


def filled(
    rings: Sequence[npt.ArrayLike],
    *,
    corner: Point = (0.0, 0.0),
    step: tuple[float, float],
    shape: tuple[int, ...],
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Return the pixels of a grid whose centre lies in an outline and in none of its holes.

    Parameters
    ----------
    rings : sequence of array_like of float, shape (n, 2)
        The outline, then its holes.
    corner : tuple of float, default (0.0, 0.0)
        Upper left corner (x, y) of the grid.
    step : tuple of float
        Length of a pixel of the grid, x and y.
    shape : tuple of int
        Height and width of the grid.

    Returns
    -------
    tuple of slice, ndarray of bool
        Rows and columns of the box around the outline, and its pixels.
    """
    outline, *holes = (
        _inside((np.asarray(ring, dtype=np.float64) - corner) / step - 0.5, shape) for ring in rings
    )
    (rows, columns), pixels = outline
    whole = np.zeros(shape, np.bool_) if holes else pixels
    if holes:
        whole[rows, columns] = pixels
        for place, hole in holes:
            whole[place] &= ~hole
        whole = whole[rows, columns]
    return (rows, columns), whole


def _inside(
    ring: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """Return the box around a ring of points (x, y), and which of its pixels lie inside."""
    first = np.clip(np.floor(ring.min(axis=0)), 0, shape[::-1]).astype(int)
    width, height = np.clip(np.ceil(ring.max(axis=0)) + 1, 0, shape[::-1]).astype(int) - first
    box = np.s_[first[1] : first[1] + height, first[0] : first[0] + width]
    pixels = np.zeros((height, width), np.bool_)
    _fill(ring - first, pixels)
    return box, pixels


@compiled
def _fill(ring: F64, pixels: Flags) -> None:
    """Set the pixels of which an odd number of edges cross the row to the left."""
    height, width = pixels.shape
    for i in range(len(ring)):
        x, y = ring[i - 1]
        next_x, next_y = ring[i]
        top, bottom = np.ceil(min(y, next_y)), np.ceil(max(y, next_y))
        for row in range(int(max(top, 0.0)), int(min(bottom, float(height)))):
            crossed = np.ceil(x + (row - y) * (next_x - x) / (next_y - y))
            column = int(min(max(crossed, 0.0), float(width)))  # far ones are no integers
            if column < width:
                pixels[row, column] = not pixels[row, column]
    for row in range(height):
        is_inside = False
        for column in range(width):
            is_inside ^= pixels[row, column]
            pixels[row, column] = is_inside


def mended(outline: tuple[Point, ...], holes: tuple[tuple[Point, ...], ...] = ()) -> Rings:
    """Return an outline and its holes as they are, or without their crossings.

    Raises
    ------
    RegionError
        If they bound no area, or several areas of similar size.
    """
    shape = Polygon(outline, holes) if len(outline) >= 3 else Polygon()
    if shape.is_valid and shape.area > 0:
        return outline, holes
    valid = make_valid(shape, method="structure", keep_collapsed=False)
    parts = [one for one in get_parts(valid) if one.geom_type == "Polygon" and one.area > 0]
    if not parts:
        raise RegionError("the outline bounds no area; draw it with at least three corners")
    largest = max(parts, key=lambda one: one.area)
    if largest.area < LARGEST_SHARE * sum(one.area for one in parts):
        raise RegionError(
            f"the outline crosses itself and bounds {len(parts)} areas; draw each of them by itself"
        )
    return rings_of(largest)


def rings_of(polygon: Polygon) -> Rings:
    """Return the outline and the holes of a polygon."""
    return _points(polygon.exterior), tuple(map(_points, polygon.interiors))


def _points(ring: LinearRing) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in ring.coords[:-1])
