import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from glomerulab.structures.instances import StructureObject
from glomerulab.structures.polygons import area_polygons, object_polygon, rings
from tests.support.structure_maps import draw_disc, make_map


def whole(mask, left=0, top=0):
    return StructureObject("tubule", left, top, mask, 1.0, touches_edge=False)


@pytest.mark.parametrize("radius", [4.5, 7, 15, 60, 250])
def test_the_outline_of_a_disc_has_its_area_and_place(radius):
    size = 2 * math.ceil(radius) + 1
    mask = draw_disc((size, size), (size // 2, size // 2), radius)
    frame = make_map({"tubule": np.zeros((600, 700), bool)}, scale=2.0).frame
    outline = object_polygon(whole(mask, left=30, top=50), frame)
    assert outline.is_valid
    assert outline.area == pytest.approx(4 * mask.sum(), rel=0.01)
    centre = outline.centroid
    assert (centre.x, centre.y) == pytest.approx(
        (2 * (30 + size / 2), 2 * (50 + size / 2)), abs=0.2
    )
    true = shapely.Point(centre).buffer(2 * radius, quad_segs=64)
    assert outline.hausdorff_distance(true) < 2 * 1.3


def test_holes_are_kept():
    ring = draw_disc((101, 101), (50, 50), 50) & ~draw_disc((101, 101), (50, 50), 20)
    frame = make_map({"tubule": ring}).frame
    outline = object_polygon(whole(ring), frame)
    points, (hole,) = rings(outline)
    assert outline.area == pytest.approx(4 * ring.sum(), rel=0.01)
    assert shapely.Polygon(hole).area == pytest.approx(4 * math.pi * 20**2, rel=0.03)
    assert points[0] != points[-1]


@given(seed=st.integers(0, 10**6), sigma=st.floats(1.0, 4.0))
@settings(max_examples=15)
def test_outlines_of_any_connected_mask_are_valid_and_of_its_area(seed, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(80, 90)), sigma)
    labels, n = ndimage.label(field > 0)
    frame = make_map({"tubule": labels > 0}).frame
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[box] == label
        outline = object_polygon(whole(mask), frame)
        assert outline.is_valid
        n_holes = len(outline.interiors)
        lost = abs(outline.area / 4 - mask.sum())
        assert lost <= 0.01 * mask.sum() + 0.5 * (1 + n_holes)
    assert n


def areas_of(drawn, **options):
    found = list(area_polygons(drawn, "cortex", **options))
    return sorted(found, key=lambda one: one.bounds)


@given(seed=st.integers(0, 10**6), strip_rows=st.integers(1, 50))
@settings(max_examples=15)
def test_areas_are_joined_without_seams(seed, strip_rows):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(97, 80)), 3)
    drawn = make_map({"cortex": field > 0}, mpp=4.0)
    at_once, in_strips = areas_of(drawn), areas_of(drawn, strip_rows=strip_rows)
    assert len(at_once) == len(in_strips)
    assert all(one.is_valid for one in in_strips)
    for one, other in zip(at_once, in_strips, strict=True):
        assert len(one.interiors) == len(other.interiors)
        # Simplifying may start at another vertex.
        assert one.hausdorff_distance(other) <= 2 * 0.5 / 4
        assert one.area == pytest.approx(other.area, rel=0.01)


@pytest.mark.parametrize("strip_rows", [1, 10, None])
def test_an_area_that_fills_the_slide_is_one_rectangle(strip_rows):
    drawn = make_map({"cortex": np.ones((50, 40), bool)})
    (found,) = area_polygons(drawn, "cortex", strip_rows=strip_rows)
    assert found.area == pytest.approx(80 * 100, rel=0.001)
    assert found.bounds == (0, 0, 80, 100)
