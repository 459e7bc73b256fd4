import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from shapely import Point, Polygon
from skimage.measure import points_in_poly

from glomerulab.geometry import Box
from glomerulab.slides.regions.polygons import (
    centroid,
    contains,
    filled,
    mean_radius,
    overlap,
    scaled,
)

SQUARE = Box(10, 20, 100, 100).corners()


def disc(x: float, y: float, radius: float, n: int = 200):
    angles = np.arange(n) * 2 * math.pi / n
    return tuple((x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles)


def test_the_centroid_is_that_of_the_area_not_of_the_corners() -> None:
    crowded = (*disc(0, 0, 10, 40)[:20], (-10.0, -10.0), (10.0, -10.0))
    assert centroid(SQUARE) == (60.0, 70.0)
    assert centroid(crowded)[1] < np.mean([y for _, y in crowded])


def test_a_line_has_the_mean_of_its_corners() -> None:
    assert centroid(((0.0, 0.0), (4.0, 0.0), (8.0, 0.0))) == (4.0, 0.0)


def test_the_mean_radius_of_a_disc_is_its_radius() -> None:
    assert mean_radius(disc(5, 5, 30)) == pytest.approx(30, rel=1e-3)


def test_scaling_keeps_the_centroid_and_multiplies_the_radius() -> None:
    grown = scaled(disc(7, -3, 20), 1.5)
    assert centroid(grown) == pytest.approx((7, -3))
    assert mean_radius(grown) == pytest.approx(30, rel=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_points_are_inside_where_they_are_for_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outline = [tuple(p) for p in rng.uniform(0, 100, (rng.integers(3, 12), 2))]
    points = rng.uniform(-10, 110, (50, 2))
    assert (contains(outline, points) == points_in_poly(points, outline)).all()


def test_outlines_that_cross_themselves_have_an_overlap() -> None:
    bow_tie = ((0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0))
    assert overlap(bow_tie, bow_tie) == pytest.approx(1.0)
    assert overlap(bow_tie, Box(0, 0, 10, 10).corners()) == pytest.approx(0.5)


def test_overlap_is_intersection_over_union() -> None:
    half = Box(60, 20, 100, 100).corners()  # shares half of each square
    assert overlap(SQUARE, SQUARE) == 1.0
    assert overlap(SQUARE, half) == pytest.approx(1 / 3, rel=1e-12)
    assert overlap(SQUARE, Box(500, 500, 10, 10).corners()) == 0.0
    assert overlap(disc(0, 0, 50), disc(0, 0, 100)) == pytest.approx(0.25, rel=1e-9)


POINT = st.tuples(st.integers(-20, 90), st.integers(-20, 90))


@given(
    st.lists(POINT, min_size=3, max_size=8),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.tuples(st.integers(-5, 30), st.integers(-5, 30)),
)
def test_a_pixel_is_filled_where_its_centre_lies_in_the_outline(outline, step, corner) -> None:
    shape = Polygon(outline)
    assume(shape.is_valid and shape.area > 0)
    place, inside = filled([outline], corner=corner, step=(step, step), shape=(60, 70))
    mask = np.zeros((60, 70), dtype=bool)
    mask[place] |= inside
    for row, column in np.argwhere(mask):
        centre = Point(corner[0] + (column + 0.5) * step, corner[1] + (row + 0.5) * step)
        assert shape.distance(centre) < 1e-6
    for row, column in np.argwhere(~mask)[::7]:
        centre = Point(corner[0] + (column + 0.5) * step, corner[1] + (row + 0.5) * step)
        assert not shape.contains_properly(centre)


def test_holes_are_not_filled() -> None:
    place, inside = filled([SQUARE, Box(30, 40, 20, 10).corners()], step=(1, 1), shape=(200, 200))
    assert place == np.s_[19:121, 9:111]
    assert inside.sum() == 100 * 100 - 20 * 10
    assert not inside[21:31, 21:41].any()
