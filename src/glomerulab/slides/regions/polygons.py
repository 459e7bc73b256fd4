"""What can be asked of outlines: where they lie, how large they are, how far two agree.

Pure geometry on polygons in level-0 pixels; no slide is opened.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from glomerulab.geometry import Point

__all__ = ["centroid", "contains", "mean_radius", "overlap", "scaled"]

BoolArray = npt.NDArray[np.bool_]

RASTER_PX = 256
"""Longer side of the picture that two outlines are compared on: overlaps are right to 1 %."""


def centroid(outline: Sequence[Point]) -> Point:
    """Return the centre of the area of an outline.

    Parameters
    ----------
    outline : sequence of point
        At least three, not closed.

    Returns
    -------
    tuple of float
        The mean of the corners where the outline bounds no area.
    """
    x, y = np.asarray(outline, dtype=np.float64).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    cross = x * next_y - next_x * y
    doubled = float(cross.sum())
    if abs(doubled) < 1e-9:
        return float(x.mean()), float(y.mean())
    return (
        float(((x + next_x) * cross).sum() / (3 * doubled)),
        float(((y + next_y) * cross).sum() / (3 * doubled)),
    )


def mean_radius(outline: Sequence[Point]) -> float:
    """Return the radius of the disc of the same area, in pixels."""
    x, y = np.asarray(outline, dtype=np.float64).T
    area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())) / 2
    return float(np.sqrt(area / np.pi))


def scaled(outline: Sequence[Point], factor: float) -> tuple[Point, ...]:
    """Return an outline enlarged about its centroid."""
    middle = np.asarray(centroid(outline))
    points = middle + factor * (np.asarray(outline, dtype=np.float64) - middle)
    return tuple((float(x), float(y)) for x, y in points)


def contains(outline: Sequence[Point], points: npt.ArrayLike) -> BoolArray:
    """Say which points lie inside an outline.

    Parameters
    ----------
    outline : sequence of point
    points : array_like of float, shape (n, 2)

    Returns
    -------
    ndarray of bool, shape (n,)

    Notes
    -----
    A ray to the right crosses the outline an odd number of times from inside.
    """
    corners = np.asarray(outline, dtype=np.float64)
    ends = np.roll(corners, -1, axis=0)
    x, y = np.asarray(points, dtype=np.float64).reshape(-1, 2).T[:, :, None]  # (n, 1)
    spans = (corners[:, 1] > y) != (ends[:, 1] > y)  # (n, edges)
    rise = np.where(ends[:, 1] == corners[:, 1], 1.0, ends[:, 1] - corners[:, 1])
    crossing = corners[:, 0] + (y - corners[:, 1]) * (ends[:, 0] - corners[:, 0]) / rise
    inside: BoolArray = (spans & (x < crossing)).sum(axis=1) % 2 == 1
    return inside


def overlap(one: Sequence[Point], other: Sequence[Point]) -> float:
    """Return the area that two outlines share over the area that either covers (IoU).

    Parameters
    ----------
    one, other : sequence of point

    Returns
    -------
    float
        From 0 to 1.
    """
    both = np.concatenate([np.asarray(one, np.float64), np.asarray(other, np.float64)])
    corner = both.min(axis=0)
    extent = both.max(axis=0) - corner
    scale = (RASTER_PX - 1) / max(float(extent.max()), 1e-9)
    size = tuple(int(side) for side in np.ceil(extent * scale) + 1)
    first, second = (
        _filled((np.asarray(outline, np.float64) - corner) * scale, size)
        for outline in (one, other)
    )
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 0.0


def _filled(points: npt.NDArray[np.float64], size: tuple[int, ...]) -> BoolArray:
    picture = Image.new("1", (size[0], size[1]))
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in points], fill=1)
    return np.asarray(picture, dtype=np.bool_)
