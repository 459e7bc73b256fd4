"""Cut outlines along strokes drawn by hand, and join outlines."""

import math
from collections.abc import Sequence

from shapely import Geometry, LineString, Polygon, buffer, get_parts, is_empty, unary_union
from shapely.ops import polygonize, split

from glomerulab.errors import RegionError
from glomerulab.geometry import Point
from glomerulab.slides.regions.polygons import Rings, mended, rings_of

__all__ = ["cut", "joined"]

DETAIL = 1 / 500
"""Of the length of a stroke: finer movements of the hand are left out, and narrower parts too."""
NARROWEST = 1.0
"""Pixels, for parts of short strokes."""
LOOP_GAP = 0.25
"""Between the ends of a loop, as share of its length."""
JOIN_GAP = 0.25
"""Between two shapes, as share of the smaller one's side (the root of its area)."""

OVERLAP = 0.05
"""Pixels by which what is filled reaches into the shapes, so that they meet."""


def cut(rings: Rings, stroke: Sequence[Point]) -> list[Rings]:
    """Return what is left of an outline, the largest part first.

    A stroke whose ends meet, or are no further apart than `LOOP_GAP`, takes away what it
    surrounds: inside the outline that is a hole. Any other stroke splits the outline, and nothing
    is taken away.

    Parameters
    ----------
    rings : tuple
        Outline and holes, level-0 pixels.
    stroke : sequence of (float, float)
        At least two points of the hand's way, level-0 pixels.

    Raises
    ------
    RegionError
        If the outline bounds no area, or the stroke cuts nothing, or takes away all of it.
    """
    shape = _polygon(rings)
    line = LineString(stroke)
    detail = line.length * DETAIL
    line, narrowest = line.simplify(detail), max(detail, NARROWEST)
    if math.dist(line.coords[0], line.coords[-1]) <= LOOP_GAP * line.length:
        taken = _surrounded(line).simplify(detail)
        parts, _ = _by_width(shape.difference(taken), narrowest)
        is_cut = len(_by_width(shape.intersection(taken), narrowest)[0]) > 0
    else:
        parts = _sides(shape, line, narrowest)
        is_cut = len(parts) > 1
    if not is_cut:
        raise RegionError(
            "nothing was cut; draw a loop around the part to take away, or a line from one side "
            "of the shape to the other"
        )
    if not parts:
        raise RegionError(
            "the loop surrounds the whole shape; press Delete to delete it, or cut a part of it"
        )
    return [rings_of(one) for one in sorted(parts, key=lambda one: -one.area)]


def joined(shapes: Sequence[Rings]) -> Rings:
    """Return one outline around two or more that touch or nearly touch, with their holes.

    Raises
    ------
    RegionError
        If an outline bounds no area, or they lie apart, or only their corners are close.
    """
    polygons = [_polygon(one) for one in shapes]
    whole = unary_union(polygons)
    apart = max(
        one.distance(unary_union([other for other in polygons if other is not one]))
        for one in polygons
    )
    if apart > JOIN_GAP * min(one.area for one in polygons) ** 0.5:
        raise RegionError(
            f"the shapes lie {apart:.0f} pixels apart; join shapes that touch, or draw one around "
            "both"
        )
    # What a closing fills between them, and nowhere else; also where corners were rounded.
    reach = apart + 2 * OVERLAP
    filled = get_parts(whole.buffer(reach).buffer(-reach).difference(whole))
    bridges = [
        one.buffer(OVERLAP, join_style="mitre")
        for one in filled
        if sum(one.distance(each) < OVERLAP for each in polygons) > 1
    ]
    one = unary_union([whole, *bridges])
    if not isinstance(one, Polygon):
        raise RegionError("the shapes do not meet; draw one around both")
    return rings_of(one.simplify(OVERLAP))  # the fill has arcs of hundredths of a pixel


def _polygon(rings: Rings) -> Polygon:
    return Polygon(*mended(*rings))


def _surrounded(line: LineString) -> Geometry:
    """Return all that a stroke surrounds when its ends are connected, however often it crosses."""
    if len(line.coords) < 3:
        return Polygon()
    return unary_union(list(polygonize(unary_union(LineString([*line.coords, line.coords[0]])))))


def _sides(shape: Polygon, line: LineString, narrowest: float) -> list[Polygon]:
    """Return the parts on the sides of a line; each narrow one belongs to a neighbour."""
    parts, narrow = _by_width(split(shape, line), narrowest)
    if len(parts) > 1:
        for one in get_parts(unary_union(narrow)):
            borders = [each.intersection(one).length for each in parts]
            neighbour = borders.index(max(borders))
            parts[neighbour] = parts[neighbour].union(one)
    return parts


def _by_width(geometry: Geometry, narrowest: float) -> tuple[list[Polygon], list[Polygon]]:
    """Return the wide parts, and the narrow ones, where a stroke only grazes the border."""
    parts = get_parts(geometry)
    is_narrow = is_empty(buffer(parts, -narrowest / 2))
    return list(parts[~is_narrow]), list(parts[is_narrow])
