"""Area, centroid and overlap of outlines in level-0 pixels, computed by shapely."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from shapely import Polygon, contains_xy, make_valid

from glomerulab.geometry import Point

__all__ = ["area", "centroid", "contains", "mean_radius", "overlap", "scaled"]


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
