"""Outlines with holes in level-0 pixels, of objects and of areas.

A contour runs half-way between the centres of the pixels in and out, so that its area is that of
the pixels, less half a pixel for the outline and more by half a pixel for each hole. Large masks
are traced in strips that share a row; a strip's polygons end in it, and are joined along it.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from contourpy import FillType, contour_generator
from shapely import Polygon
from shapely.affinity import affine_transform

from glomerulab.geometry import Point
from glomerulab.runtime.jit import Flags
from glomerulab.structures.instances import StructureObject
from glomerulab.structures.maps import MapFrame, StructureMap, read_rows

__all__ = ["MIN_PIECE_UM2", "TOLERANCE_UM", "area_polygons", "object_polygon", "rings"]

TOLERANCE_UM = 0.5
"""How far a simplified outline may lie from the contour."""
MAX_AREA_CHANGE = 0.01
"""Share of the area by which simplifying may change it; a finer tolerance is taken else."""
N_TOLERANCES = 3
"""Tolerances tried, each half of the one before, before the contour is kept as it is."""
MIN_PIECE_UM2 = 100.0
"""Smaller pieces of an area are not outlined; their pixels count in the summary."""
STRIP_PX = 1 << 22
DECIMALS = 2
"""Of coordinates, level-0 pixels."""

Rows = Callable[[int, int], Flags]
"""Give the rows of a mask from a first one to before a second."""


def object_polygon(of: StructureObject, frame: MapFrame) -> Polygon:
    """Return the outline of an object with its holes.

    Returns
    -------
    Polygon
        Valid, in level-0 pixels; its area is that of the pixels within 1 %, for objects of at
        least 50 pixels.
    """
    found = _traced(lambda first, last: of.mask[first:last], of.mask.shape)
    whole = max(found, key=lambda one: one.area)  # an object is connected, so there is one
    return _placed(whole, frame, of.left, of.top)


def area_polygons(
    structure_map: StructureMap, structure_id: str, *, strip_rows: int | None = None
) -> Iterator[Polygon]:
    """Yield the likely pieces of a structure with their holes.

    Parameters
    ----------
    strip_rows : int, optional
        Rows traced at once, which changes the order of the pieces and nothing else.

    Yields
    ------
    Polygon
        Valid, in level-0 pixels; of at least `MIN_PIECE_UM2`.
    """
    frame = structure_map.frame
    bit = frame.bit(structure_id)
    least = MIN_PIECE_UM2 / frame.pixel_um2

    def rows(first: int, last: int) -> Flags:
        found: Flags = (read_rows(structure_map.likely, first, last) & bit) != 0
        return found

    for piece in _traced(rows, (frame.height, frame.width), strip_rows):
        if piece.area >= least:
            yield _placed(piece, frame, 0, 0)


def rings(of: Polygon) -> tuple[tuple[Point, ...], tuple[tuple[Point, ...], ...]]:
    """Return the points of an outline and those of its holes, not closed."""
    outline, *holes = (
        tuple((x, y) for x, y in np.round(ring.coords, DECIMALS)[:-1].tolist())
        for ring in (of.exterior, *of.interiors)
    )
    return outline, tuple(holes)


def _placed(contour: Polygon, frame: MapFrame, left: int, top: int) -> Polygon:
    """Return a contour simplified and in level-0 pixels."""
    x, y = frame.scale
    simple = _simplified(contour, TOLERANCE_UM / max(frame.mpp))
    return affine_transform(simple, (x, 0.0, 0.0, y, x * left, y * top))


def _simplified(contour: Polygon, tolerance: float) -> Polygon:
    for halvings in range(N_TOLERANCES):
        # What the faster algorithm makes is checked below.
        simple = contour.simplify(tolerance / 2**halvings, preserve_topology=False)
        if (
            isinstance(simple, Polygon)
            and simple.is_valid
            and abs(simple.area - contour.area) <= MAX_AREA_CHANGE / 2 * contour.area
        ):
            return simple
    return contour


def _traced(rows: Rows, shape: tuple[int, int], strip_rows: int | None = None) -> Iterator[Polygon]:
    """Yield the contours of a mask in its pixels, whose corners are whole numbers."""
    height, width = shape
    step = strip_rows or max(1, STRIP_PX // width)
    waiting: list[Polygon] = []
    for top in range(0, max(1, height - 1), step):
        bottom = min(top + step, height - 1)
        pieces = _contours(rows(top, bottom + 1), top, height)
        seam = bottom + 0.5 if bottom < height - 1 else np.inf
        above = [*waiting, *(one for one in pieces if one.bounds[1] == top + 0.5)]
        joined = _union(above) if waiting else above
        whole = [*joined, *(one for one in pieces if one.bounds[1] != top + 0.5)]
        waiting = [one for one in whole if one.bounds[3] == seam]
        yield from (one for one in whole if one.bounds[3] != seam)


def _union(pieces: Sequence[Polygon]) -> list[Polygon]:
    """Join polygons that share parts of their borders."""
    found = shapely.get_parts(shapely.union_all(pieces))
    return [one for one in found if isinstance(one, Polygon)]


def _contours(mask: Flags, top: int, height: int) -> list[Polygon]:
    """Return the contours of some rows of a mask; they end in rows that are not the mask's ends."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return []
    left, right = int(columns[0]), int(columns[-1]) + 1
    above, below = int(top == 0), int(top + len(mask) == height)
    z = np.pad(mask[:, left:right], ((above, below), (1, 1))).astype(np.float64)
    x = np.arange(left - 1, right + 1) + 0.5
    y = np.arange(top - above, top + len(mask) + below) + 0.5
    generator = contour_generator(x=x, y=y, z=z, name="serial", fill_type=FillType.OuterOffset)
    return [
        _polygon(points, offsets)
        for points, offsets in zip(*generator.filled(0.5, np.inf), strict=True)
    ]


def _polygon(points: npt.NDArray[np.float64], offsets: npt.NDArray[np.uint32]) -> Polygon:
    outline, *holes = np.split(points, offsets[1:-1])
    return Polygon(outline, holes)
