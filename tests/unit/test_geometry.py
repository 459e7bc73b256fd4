import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.geometry import Box, Region

BOXES = st.builds(
    Box,
    st.integers(-1000, 1000),
    st.integers(-1000, 1000),
    st.integers(1, 500),
    st.integers(1, 500),
)
COORDINATE = st.integers(-(10**8), 10**8).map(lambda hundredths: hundredths / 100)
POLYGONS = st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=9).map(tuple)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_a_box_without_area_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 x 1"):
        Box(0, 0, *size)


@given(box=BOXES, margin=st.floats(0, 3))
def test_a_grown_box_keeps_its_centre_and_holds_the_old_one(box: Box, margin: float) -> None:
    grown = box.grown(margin)
    assert 2 * grown.x + grown.width == 2 * box.x + box.width
    assert 2 * grown.y + grown.height == 2 * box.y + box.height
    assert grown.intersection_area(box) == box.width * box.height


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_an_invalid_margin_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be"):
        Box(0, 0, 5, 5).grown(margin)


@given(one=BOXES, other=BOXES)
def test_the_shared_area_is_that_of_the_shared_pixels(one: Box, other: Box) -> None:
    columns = set(range(one.x, one.x + one.width)) & set(range(other.x, other.x + other.width))
    rows = set(range(one.y, one.y + one.height)) & set(range(other.y, other.y + other.height))
    assert one.intersection_area(other) == len(columns) * len(rows)
    assert other.intersection_area(one) == one.intersection_area(other)
    n_pixels = one.width * one.height + other.width * other.height - len(columns) * len(rows)
    assert one.iou(other) == pytest.approx(len(columns) * len(rows) / n_pixels)


def test_corners_go_clockwise_on_screen_from_the_upper_left() -> None:
    assert Box(1, 2, 10, 20).corners() == ((1, 2), (11, 2), (11, 22), (1, 22))


@given(box=BOXES)
def test_a_region_from_a_box_has_that_box(box: Box) -> None:
    region = Region.from_box("r", box, labels=["cgn"], slide_id="s")
    assert region.box() == box
    assert (region.labels, region.slide_id) == (("cgn",), "s")


@given(polygon=POLYGONS)
def test_the_box_of_a_region_holds_every_point_and_no_pixel_too_many(
    polygon: tuple[tuple[float, float], ...],
) -> None:
    box = Region("r", polygon).box()
    for x, y in polygon:
        assert box.x <= x <= box.x + box.width
        assert box.y <= y <= box.y + box.height
    assert box.x > min(x for x, _ in polygon) - 1
    assert box.x + box.width < max(max(x for x, _ in polygon) + 1, box.x + 2)


def test_an_outline_without_area_or_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="region 'r' has 2 points, needs 3"):
        Region("r", ((0, 0), (1, 1)))
    with pytest.raises(ValueError, match="not finite"):
        Region("r", ((0, 0), (1, 1), (math.nan, 2)))
