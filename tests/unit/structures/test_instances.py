import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.graph import MCP
from skimage.segmentation import watershed

from glomerulab.structures import instances
from glomerulab.structures.instances import count_possible, find_objects
from glomerulab.structures.tissue import Outside
from tests.support.structure_maps import draw_disc, make_map

SHAPE = (120, 200)


def objects_of(structure_map, **options):
    return sorted(find_objects(structure_map, **options), key=lambda one: one.first_pixel)


def painted(objects, shape):
    """Return an image of the objects' numbers."""
    image = np.zeros(shape, int)
    for number, one in enumerate(objects, start=1):
        rows = slice(one.top, one.top + one.mask.shape[0])
        part = image[rows, one.left : one.left + one.mask.shape[1]]
        assert not part[one.mask].any(), "two objects share a pixel"
        part[one.mask] = number
    return image


def test_touching_discs_are_parted_at_the_middle_and_nothing_is_lost():
    one, other = draw_disc(SHAPE, (60, 60), 30), draw_disc(SHAPE, (60, 118), 30)
    cores = draw_disc(SHAPE, (60, 60), 22) | draw_disc(SHAPE, (60, 118), 22)
    drawn = make_map({"glomerulus": one | other}, core={"glomerulus": cores})
    found = objects_of(drawn)
    assert [item.structure for item in found] == ["glomerulus"] * 2
    image = painted(found, SHAPE)
    assert np.array_equal(image > 0, one | other)
    assert abs(found[0].mask.sum() - found[1].mask.sum()) < 60
    assert set(image[60, 35:88]) <= {found.index(found[0]) + 1, 2}
    assert {image[60, 40], image[60, 140]} == {1, 2}


def test_an_object_without_a_core_is_kept_whole_and_small_ones_are_left_out():
    ring = draw_disc(SHAPE, (60, 60), 20) & ~draw_disc(SHAPE, (60, 60), 16)
    speck = draw_disc(SHAPE, (60, 150), 3)
    empty = np.zeros(SHAPE, bool)
    (found,) = objects_of(make_map({"tubule": ring | speck}, core={"tubule": empty}))
    assert np.array_equal(
        found.mask, ring[found.top : found.top + 41, found.left : found.left + 41]
    )
    assert found.certainty == 1.0


def test_certainty_is_the_share_of_certain_pixels():
    mask = draw_disc(SHAPE, (60, 60), 25)
    half = mask & (np.arange(SHAPE[1]) < 60)
    (found,) = objects_of(make_map({"tubule": mask}, certain={"tubule": half}))
    assert found.certainty == pytest.approx(half.sum() / mask.sum())


@pytest.mark.parametrize(("centre", "is_cut"), [((10, 60), True), ((60, 60), False)])
def test_an_object_at_the_edge_of_the_slide_is_cut(centre, is_cut):
    (found,) = objects_of(make_map({"artery": draw_disc(SHAPE, centre, 25)}))
    assert found.touches_edge is is_cut


@pytest.mark.parametrize(("first_glass", "is_cut"), [(75, True), (100, False)])
def test_an_object_at_the_edge_of_the_tissue_is_cut(first_glass, is_cut):
    glass = np.zeros((60, 100), bool)
    glass[:, first_glass // 2 :] = True
    drawn = make_map({"artery": draw_disc(SHAPE, (60, 60), 25)})
    (found,) = objects_of(drawn, outside=Outside(glass, (0.5, 0.5), np.full(3, 255.0)))
    assert found.touches_edge is is_cut


def random_map(seed, shape=(90, 70)):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    spread = field.std()
    likely, core = field > 0.2 * spread, field > rng.uniform(0.6, 2.0) * spread
    certain = field > 0.4 * spread
    return make_map({"tubule": likely}, core={"tubule": core}, certain={"tubule": certain})


@pytest.mark.parametrize("reach_um", [4.0, 60.0])
@given(seed=st.integers(0, 10**6), strip_rows=st.integers(1, 40))
@settings(max_examples=20)
def test_objects_do_not_depend_on_the_strips(reach_um, seed, strip_rows):
    drawn = random_map(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instances, "REACH_UM", reach_um)
        patch.setattr(instances, "MIN_AREA_UM2", {"tubule": 5.0})
        whole = objects_of(drawn)
        in_strips = objects_of(drawn, strip_rows=strip_rows)
    assert [one.first_pixel for one in whole] == [one.first_pixel for one in in_strips]
    for one, other in zip(whole, in_strips, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert (one.certainty, one.touches_edge) == (other.certainty, other.touches_edge)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_every_pixel_belongs_to_the_nearest_core_within_the_structure(seed):
    drawn = random_map(seed)
    likely, core = drawn.likely > 0, (drawn.core & drawn.likely) > 0
    markers, n = ndimage.label(core)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instances, "REACH_UM", 1000.0)
        patch.setattr(instances, "MIN_AREA_UM2", {"tubule": 0.0})
        found = objects_of(drawn)
    nearest = geodesic_distance(likely, core)
    with_core = [one for one in found if core[_place(one)][one.mask].any()]
    assert len(with_core) == n
    image = painted(with_core, likely.shape)
    assert np.array_equal(image > 0, watershed(np.zeros(likely.shape), markers, mask=likely) > 0)
    for number, one in enumerate(with_core, start=1):
        (label,) = np.unique(markers[_place(one)][one.mask & core[_place(one)]])
        own = geodesic_distance(likely, markers == label)
        assert np.array_equal(own[image == number], nearest[image == number])


def geodesic_distance(likely, core):
    steps = MCP(np.where(likely, 1.0, np.inf), fully_connected=False)
    return steps.find_costs(np.argwhere(core))[0]


def _place(one):
    height, width = one.mask.shape
    return slice(one.top, one.top + height), slice(one.left, one.left + width)


@pytest.mark.parametrize("strip_rows", [None, 7])
def test_possible_objects_are_those_without_a_likely_pixel(strip_rows):
    likely = draw_disc(SHAPE, (60, 60), 20)
    around = draw_disc(SHAPE, (60, 60), 30)
    alone, speck = draw_disc(SHAPE, (60, 150), 20), draw_disc(SHAPE, (20, 100), 4)
    drawn = make_map({"glomerulus": likely}, possible={"glomerulus": around | alone | speck})
    assert count_possible(drawn, strip_rows) == {"glomerulus": 1}
