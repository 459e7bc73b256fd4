import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from shapely import Point, Polygon
from skimage import draw
from skimage.measure import points_in_poly

from glomerulab.geometry import Box
from glomerulab.slides.regions.polygons import contains, filled

SQUARE = Box(10, 20, 100, 100).corners()


@given(st.integers(0, 2**32 - 1))
def test_points_are_inside_where_they_are_for_scikit_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outline = [tuple(p) for p in rng.uniform(0, 100, (rng.integers(3, 12), 2))]
    points = rng.uniform(-10, 110, (50, 2))
    assert (contains(outline, points) == points_in_poly(points, outline)).all()


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


@given(st.integers(0, 2**32 - 1))
def test_pixels_are_those_of_scikit_image_also_where_an_outline_crosses_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outline = rng.uniform(-10, 60, (rng.integers(3, 40), 2))
    place, inside = filled([outline], step=(1, 1), shape=(50, 40))
    mask, expected = np.zeros((2, 50, 40), bool)
    mask[place] = inside
    expected[draw.polygon(outline[:, 1] - 0.5, outline[:, 0] - 0.5, expected.shape)] = True
    np.testing.assert_array_equal(mask, expected)


def test_holes_are_not_filled() -> None:
    place, inside = filled([SQUARE, Box(30, 40, 20, 10).corners()], step=(1, 1), shape=(200, 200))
    assert place == np.s_[19:121, 9:111]
    assert inside.sum() == 100 * 100 - 20 * 10
    assert not inside[21:31, 21:41].any()
