"""Area, centroid, overlap and repair of outlines in level-0 pixels, computed by shapely."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from shapely import LinearRing, Polygon, contains_xy, get_parts, make_valid

from glomerulab.errors import RegionError
from glomerulab.geometry import Point

__all__ = ["area", "centroid", "contains", "mean_radius", "mended", "overlap", "scaled"]


Rings = tuple[tuple[Point, ...], tuple[tuple[Point, ...], ...]]
"""An outline and its holes."""
LARGEST_SHARE = 0.95
"""Of the area that a crossing outline bounds; the rest are loops left by the hand."""


def area(outline: Sequence[Point]) -> float:
    """Return the area of an outline, in square pixels."""
    return float(Polygon(outline).area)


def centroid(outline: Sequence[Point]) -> Point:
    """Return the centre of the area of an outline."""
    centre = Polygon(outline).centroid
    return centre.x, centre.y


def mean_radius(outline: Sequence[Point]) -> float:
    """Return the radius of the disc of the same area, in pixels."""
    return math.sqrt(area(outline) / math.pi)


def scaled(outline: Sequence[Point], factor: float) -> tuple[Point, ...]:
    """Return an outline enlarged about its centroid."""
    centre = np.asarray(centroid(outline))
    points = centre + factor * (np.asarray(outline, dtype=np.float64) - centre)
    return tuple((float(x), float(y)) for x, y in points)


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


def overlap(one: Sequence[Point], other: Sequence[Point]) -> float:
    """Return the intersection over union (IoU) of two outlines, from 0 to 1."""
    first, second = make_valid(Polygon(one)), make_valid(Polygon(other))
    union = first.union(second).area
    return float(first.intersection(second).area / union) if union else 0.0


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
    return _points(largest.exterior), tuple(map(_points, largest.interiors))


def _points(ring: LinearRing) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in ring.coords[:-1])
