"""Outlines are cut along strokes of a hand, and joined."""

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from shapely import LineString, Polygon, box
from shapely.affinity import rotate
from shapely.ops import split, unary_union

from glomerulab.errors import RegionError
from glomerulab.slides.regions.editing import cut, joined
from glomerulab.slides.regions.polygons import rings_of

SQUARE = ((0.0, 0.0), (200.0, 0.0), (200.0, 200.0), (0.0, 200.0))
TWO = ((0.0, 0.0), (90.0, 0.0), (100.0, 40.0), (110.0, 0.0), (200.0, 0.0), (200.0, 100.0))
TWO += ((110.0, 100.0), (100.0, 60.0), (90.0, 100.0), (0.0, 100.0))


def circle(x: float, y: float, radius: float, *, n: int = 90, share: float = 1.0):
    """A loop as a hand draws it; `share` below 1 leaves it open, above 1 runs past its start."""
    turns = [2 * math.pi * share * i / n for i in range(n + 1)]
    return [(x + radius * math.cos(one), y + radius * math.sin(one)) for one in turns]


def polygon(rings) -> Polygon:
    return Polygon(*rings)


def square(side: float, x: float = 0.0, y: float = 0.0):
    return rings_of(box(x, y, x + side, y + side))


@pytest.mark.parametrize("share", [0.9, 1.0, 1.08])
def test_a_loop_inside_becomes_a_hole(share) -> None:
    (rings,) = cut((SQUARE, ()), circle(100, 100, 40, share=share))
    assert Polygon(rings[0]).equals(Polygon(SQUARE))
    (hole,) = rings[1]
    assert Polygon(hole).area == pytest.approx(math.pi * 40**2, rel=0.03)
    assert len(hole) < 40  # corners that a hand can move


def test_a_second_hole_leaves_the_first_and_one_over_it_widens_it() -> None:
    (one,) = cut((SQUARE, ()), circle(60, 60, 20))
    (two,) = cut(one, circle(150, 150, 20))
    assert len(two[1]) == 2
    (wider,) = cut(one, circle(75, 60, 20))
    assert len(wider[1]) == 1
    assert polygon(wider).area < polygon(one).area


def test_a_loop_over_the_border_takes_it_away() -> None:
    (rings,) = cut((SQUARE, ()), circle(200, 100, 40))
    assert rings[1] == ()
    assert polygon(rings).area == pytest.approx(200**2 - math.pi * 40**2 / 2, rel=0.01)


def test_a_line_across_splits_and_takes_nothing_away_the_larger_part_first() -> None:
    wavy = [(130.0 + 3 * math.sin(y / 9), float(y)) for y in range(-20, 121, 5)]
    parts = [polygon(one) for one in cut((TWO, ()), wavy)]
    assert len(parts) == 2
    assert sum(one.area for one in parts) == pytest.approx(Polygon(TWO).area, rel=1e-3)
    assert parts[0].area > parts[1].area
    assert parts[0].intersection(parts[1]).area < 1


def test_a_line_through_a_hole_splits_the_ring_around_it() -> None:
    ring = (SQUARE, (((60.0, 60.0), (140.0, 60.0), (140.0, 140.0), (60.0, 140.0)),))
    parts = cut(ring, [(100.0, -10.0), (100.0, 210.0)])
    assert [one[1] for one in parts] == [(), ()]
    assert sum(polygon(one).area for one in parts) == pytest.approx(polygon(ring).area)


@pytest.mark.parametrize(
    "stroke",
    [
        circle(400, 400, 30),  # beside it
        circle(100, 100, 300),  # all of it
        [(40.0, 100.0), (120.0, 100.0)],
        [(100 + 9 * math.sin(y / 50), float(y)) for y in range(-20, 181, 10)],
        circle(100, 100, 80, share=0.7),
        [(50.0, 50.0), (50.0, 50.0)],
    ],
    ids=["beside", "all", "ends inside", "stops short", "open loop", "a point"],
)
def test_a_stroke_that_cuts_nothing_or_everything_is_refused(stroke) -> None:
    with pytest.raises(RegionError):
        cut((SQUARE, ()), stroke)


numbers = st.integers(-60, 260).map(float)
strokes = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=25)


def test_a_small_part_is_split_off_and_the_narrow_ones_at_the_border_are_not() -> None:
    over_corner = [(9800 + 20.0 * n, 60 + 20 * n - 10 * math.sin(n / 4)) for n in range(-4, 13)]
    parts = [polygon(one) for one in cut(square(10_000), over_corner)]
    assert len(parts) == 2
    assert sum(one.area for one in parts) == pytest.approx(1e8)
    grazing = [(100.0, -10.0), (-1.0, 40.0), (0.2, 50.0), (-1.0, 60.0), (100.0, 210.0)]
    parts = [polygon(one) for one in cut((SQUARE, ()), grazing)]
    assert len(parts) == 3  # the corners of the left side, and the rest
    assert sum(one.area for one in parts) == pytest.approx(200**2)


def test_a_loop_leaves_the_small_part_behind_it() -> None:
    with_arm = rings_of(box(0, 0, 10_000, 10_000).union(box(9000, 4950, 10_500, 5050)))
    _, tip = (polygon(one) for one in cut(with_arm, circle(10_225, 5000, 180)))
    assert tip.bounds[2] == 10_500
    assert tip.area == pytest.approx(100 * 100, rel=0.05)


@given(strokes)
@example([(100.0, -10.0), (104.0, 90.0), (100.0, 190.0)])
def test_any_stroke_leaves_valid_parts_within_the_shape_or_is_refused(stroke) -> None:
    try:
        parts = [polygon(one) for one in cut((SQUARE, ()), stroke)]
    except RegionError:
        return
    whole = Polygon(SQUARE)
    assert all(one.is_valid for one in parts)
    assert unary_union(parts).difference(whole.buffer(0.1)).area < 1
    assert sum(one.area for one in parts) <= whole.area + 1
    if math.dist(stroke[0], stroke[-1]) > 0.25 * LineString(stroke).length:  # no loop
        assert len(parts) > 1
        assert sum(one.area for one in parts) == pytest.approx(whole.area)


def test_shapes_that_touch_overlap_or_lie_close_become_one() -> None:
    for start in (150.0, 200.0, 206.0):
        other = tuple((x + start, y) for x, y in SQUARE)
        outline, holes = joined([(SQUARE, ()), (other, ())])
        assert holes == ()
        assert Polygon(outline).area == pytest.approx((200 + start) * 200, rel=0.01)


def test_joining_takes_back_a_cut() -> None:
    parts = cut((TWO, ()), [(100.0, -10.0), (101.0, 110.0)])
    whole, holes = joined(parts)
    assert holes == ()
    assert Polygon(whole).symmetric_difference(Polygon(TWO)).area < 4
    assert len(whole) < len(TWO) + 8


@given(st.floats(0, math.pi), st.floats(0, 8), st.floats(0.2, 0.8))
def test_halves_of_a_disc_become_one_at_any_angle_and_small_gap(angle, gap, where) -> None:
    disc = Polygon(circle(300, 200, 100)[:-1])
    across = rotate(
        LineString([(0, 100 + 200 * where), (600, 100 + 200 * where)]),
        angle,
        (300, 200),
        use_radians=True,
    )
    halves = [rings_of(one.buffer(-gap / 2)) for one in split(disc, across).geoms]
    assume(len(halves) == 2)
    outline, holes = joined(halves)
    assert holes == ()
    assert Polygon(outline).is_valid
    assert Polygon(outline).area == pytest.approx(disc.area, rel=0.02 + gap / 40)


@pytest.mark.parametrize("gap", [1, 3, 5])
def test_a_small_shape_at_a_corner_is_not_lost(gap) -> None:
    with pytest.raises(RegionError, match="do not meet"):
        joined([square(1000), square(50, 1000 + gap, 1000 + gap)])


places = st.integers(-450, 260).map(float)


@given(st.integers(4, 400), places, places)
@example(10, 201.0, 201.0)
def test_a_joined_shape_covers_both_or_they_are_refused(side, x, y) -> None:
    shapes = [(SQUARE, ()), square(side, x, y)]
    try:
        whole = polygon(joined(shapes)).buffer(0.2)
    except RegionError:
        return
    assert all(whole.covers(polygon(one)) for one in shapes)


def test_joining_keeps_holes() -> None:
    (holed,) = cut((SQUARE, ()), circle(100, 100, 40))
    other = tuple((x + 200, y) for x, y in SQUARE)
    assert len(joined([holed, (other, ())])[1]) == 1


def test_shapes_that_lie_apart_are_not_joined() -> None:
    far = tuple((x + 900, y) for x, y in SQUARE)
    with pytest.raises(RegionError, match="apart"):
        joined([(SQUARE, ()), (far, ())])
