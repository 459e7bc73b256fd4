"""Cut outlines along strokes drawn by hand, and join outlines."""

from collections.abc import Sequence

from shapely import (
    Geometry,
    LineString,
    Polygon,
    get_parts,
    make_valid,
    unary_union,
)
from shapely.ops import polygonize, split

from glomerulab.errors import RegionError
from glomerulab.geometry import Point
from glomerulab.slides.regions.polygons import Rings, mended, rings_of

__all__ = ["cut", "joined"]

DETAIL = 1 / 500
"""Of the length of a stroke: finer movements of the hand are left out."""
LOOP_GAP = 0.25
"""Between the ends of a loop, as share of its length."""
SMALLEST_SHARE = 0.01
"""Of the largest part; smaller ones are crumbs where a stroke meets the border."""
JOIN_GAP = 0.25
"""Between two shapes, as share of the smaller one's side (the root of its area)."""

OVERLAP = 0.05
"""Pixels by which what is filled reaches into the shapes, so that they meet."""


def cut(rings: Rings, stroke: Sequence[Point]) -> list[Rings]:
    """Return what is left of an outline, the largest part first.

    A stroke whose ends meet takes away what it surrounds: inside the outline that is a hole. A
    stroke from side to side splits the outline, and nothing is taken away.

    Parameters
    ----------
    rings : tuple
        Outline and holes, level-0 pixels.
    stroke : sequence of (float, float)
        At least two points of the hand's way, level-0 pixels.

    Raises
    ------
    RegionError
        If the outline bounds no area, or the stroke takes away nothing or all of it.
    """
    shape = _polygon(rings)
    line = LineString(stroke)
    detail = line.length * DETAIL
    line = line.simplify(detail)
    is_loop = LineString([line.coords[0], line.coords[-1]]).length <= LOOP_GAP * line.length
    parts = [] if is_loop or line.length == 0 else _parts(split(shape, line))
    if len(parts) < 2:
        parts = _parts(shape.difference(_surrounded(line).simplify(detail)))
        if not parts:
            raise RegionError(
                "the loop surrounds the whole shape; press Delete to delete it, or cut a part of it"
            )
        if sum(one.area for one in parts) > shape.area * (1 - 1e-6):
            raise RegionError(
                "nothing was cut; draw a loop around the part to take away, or a line from one "
                "side of the shape to the other"
            )
    return [rings_of(one) for one in parts]


def joined(shapes: Sequence[Rings]) -> Rings:
    """Return one outline around two or more that touch or nearly touch, with their holes.

    Raises
    ------
    RegionError
        If an outline bounds no area, or they lie apart.
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
    parts = _parts(unary_union([whole, *bridges]))
    if len(parts) != 1:
        raise RegionError("the shapes do not meet; draw one around both")
    return rings_of(parts[0].simplify(OVERLAP))  # the fill has arcs of hundredths of a pixel


def _polygon(rings: Rings) -> Polygon:
    return Polygon(*mended(*rings))


def _surrounded(line: LineString) -> Geometry:
    """Return all that a stroke surrounds when its ends are connected, however often it crosses."""
    if len(line.coords) < 3:
        return Polygon()
    return unary_union(list(polygonize(unary_union(LineString([*line.coords, line.coords[0]])))))


def _parts(geometry: Geometry) -> list[Polygon]:
    """Return the polygons, the largest first, without crumbs."""
    valid = make_valid(geometry, method="structure", keep_collapsed=False)
    found = [one for one in get_parts(valid) if one.geom_type == "Polygon" and one.area > 0]
    found.sort(key=lambda one: -one.area)
    return [one for one in found if one.area >= SMALLEST_SHARE * found[0].area]
