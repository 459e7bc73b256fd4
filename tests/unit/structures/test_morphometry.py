import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops

from glomerulab.structures.instances import StructureObject
from glomerulab.structures.morphometry import glomerulus_measures, shape_measures, tube_measures
from glomerulab.structures.polygons import object_polygon
from tests.support.structure_maps import draw_disc, make_map

MPP = 0.8
SHAPE = (260, 260)
centres = st.tuples(st.floats(125, 135), st.floats(125, 135))


def measured(mask, *, light=None, structure="tubule", inner=None):
    """Return the measures of a mask that is one object, cut to its box."""
    drawn = make_map({structure: mask} | (inner or {}), mpp=MPP)
    rows, columns = np.nonzero(mask)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    one = StructureObject(structure, box[1].start, box[0].start, mask[box], 1.0, touches_edge=False)
    polygon = object_polygon(one, drawn.frame)
    found = shape_measures(one, polygon, drawn.frame)
    if structure == "glomerulus":
        return found | glomerulus_measures(one, found["area_um2"], drawn)
    cut = None if light is None else light[box]
    return found | tube_measures(one, polygon, cut, drawn.frame)


def is_within_error(measure, truth):
    return abs(measure.value - truth) <= measure.error


@given(radius=st.floats(6, 100), centre=centres)
@example(radius=56.00904075714493, centre=(128.63043318194815, 133.82639694589767))  # many spurs
@settings(max_examples=25)
def test_a_disc_has_the_sizes_of_the_formula_within_the_error(radius, centre):
    found = measured(draw_disc(SHAPE, centre, radius))
    um = radius * MPP
    assert is_within_error(found["area_um2"], math.pi * um**2)
    assert is_within_error(found["equivalent_diameter_um"], 2 * um)
    assert is_within_error(found["medial_diameter_um"], 2 * um)
    # Half a pixel on both sides.
    assert found["equivalent_diameter_um"].error == pytest.approx(MPP, rel=0.12)


@given(inner=st.floats(5, 40), wall=st.floats(4, 40), centre=centres)
@settings(max_examples=25)
def test_a_ring_has_the_wall_and_lumen_of_the_formula_within_the_error(inner, wall, centre):
    lumen = draw_disc(SHAPE, centre, inner)
    found = measured(draw_disc(SHAPE, centre, inner + wall), light=lumen)
    assert is_within_error(found["wall_um"], wall * MPP)
    assert is_within_error(found["lumen_area_um2"], math.pi * (inner * MPP) ** 2)
    assert is_within_error(found["lumen_share"], (inner / (inner + wall)) ** 2)


def test_a_hole_is_lumen_even_where_the_slide_is_dark():
    inner = draw_disc(SHAPE, (130, 130), 15)
    ring = draw_disc(SHAPE, (130, 130), 40) & ~inner
    found = measured(ring, light=np.zeros(SHAPE, bool))
    assert is_within_error(found["wall_um"], 25 * MPP)
    assert is_within_error(found["lumen_share"], (15 / 40) ** 2)
    assert is_within_error(found["medial_diameter_um"], 80 * MPP)


def test_a_tube_cut_lengthwise_has_its_width_as_medial_diameter():
    mask = np.zeros(SHAPE, bool)
    mask[100:121, 20:220] = True
    found = measured(mask)
    assert found["medial_diameter_um"].value == pytest.approx(21 * MPP)
    assert found["equivalent_diameter_um"].value > 3 * 21 * MPP


def test_light_that_reaches_the_border_is_no_lumen():
    cleft = np.zeros(SHAPE, bool)
    cleft[125:135, 130:] = True
    found = measured(draw_disc(SHAPE, (130, 130), 50), light=cleft)
    assert found["lumen_share"].value == 0.0
    assert "wall_um" not in found
    assert "lumen_share" not in measured(draw_disc(SHAPE, (130, 130), 50))


@given(radius=st.floats(30, 100), share=st.floats(0.3, 0.95), centre=centres)
@settings(max_examples=15)
def test_tuft_and_bowmans_space_are_those_of_two_discs_within_the_error(radius, share, centre):
    tuft = draw_disc(SHAPE, centre, radius * share)
    half = draw_disc(SHAPE, centre, radius) & (np.arange(SHAPE[1]) < centre[1])
    capsule = draw_disc(SHAPE, centre, radius)
    found = measured(
        capsule, structure="glomerulus", inner={"tuft": tuft, "sclerosed_glomerulus": half}
    )
    whole = math.pi * (radius * MPP) ** 2
    assert is_within_error(found["tuft_area_um2"], whole * share**2)
    assert is_within_error(found["tuft_share"], share**2)
    assert is_within_error(found["bowman_space_um2"], whole * (1 - share**2))
    assert is_within_error(found["sclerosed_share"], 0.5)


def test_what_the_map_does_not_know_is_not_measured():
    found = measured(draw_disc(SHAPE, (130, 130), 90), structure="glomerulus")
    assert found.keys() == {"area_um2", "equivalent_diameter_um"}


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_areas_and_diameters_are_those_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    mask = np.any([draw_disc(SHAPE, rng.uniform(110, 150, 2), 30) for _ in range(4)], axis=0)
    found = measured(mask)
    (oracle,) = regionprops(mask.astype(int), spacing=(MPP, MPP))
    assert found["area_um2"].value == pytest.approx(oracle.area)
    assert found["equivalent_diameter_um"].value == pytest.approx(oracle.equivalent_diameter_area)
    perimeter = found["area_um2"].error / (MPP / 2)
    assert perimeter == pytest.approx(regionprops(mask.astype(int))[0].perimeter * MPP, rel=0.06)
