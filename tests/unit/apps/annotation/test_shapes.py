import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Polygon

from glomerulab.apps.annotation.shapes import checked_shape, is_glomerulus, structure_of
from glomerulab.apps.annotation.store.regions import RegionInput
from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.structures.classes import KNOWN_STRUCTURES

SIZE = (1000, 800)


def _shape(*outline: tuple[float, float], holes: tuple = ()) -> RegionInput:
    box = Region("r", outline).box() if len(outline) > 2 else Box(0, 0, 1, 1)
    return RegionInput("r", "S-1", box, 0, "a save key", outline=outline, holes=holes)


@pytest.mark.parametrize(
    ("labels", "structure"),
    [
        ((), "glomerulus"),
        ((PROPOSAL_LABEL,), "glomerulus"),
        (("cgn",), "glomerulus"),
        (("Tubule",), "tubule"),
        (("atrophic tubule",), "atrophic_tubule"),
        (("sclerosed_glomerulus",), "sclerosed_glomerulus"),
        (("CORTEX",), "cortex"),
        ((KNOWN_STRUCTURES[0].name_in("zh"),), "cortex"),
    ],
)
def test_a_shape_is_a_glomerulus_unless_its_class_is_another_structure(
    labels: tuple[str, ...], structure: str
) -> None:
    assert structure_of(labels) == structure
    assert is_glomerulus(labels) == ("glomerulus" in structure)


def test_a_small_loop_is_mended_and_two_areas_are_refused() -> None:
    loop = ((300, 250), (500, 250), (500, 450), (290, 450), (290, 462), (312, 438))
    mended, is_mended = checked_shape(_shape(*loop), SIZE)
    assert is_mended
    assert Polygon(mended.outline).is_valid
    assert mended.box == Region("r", mended.outline).box()
    with pytest.raises(RegionError, match="2 areas"):
        checked_shape(_shape((0, 0), (90, 90), (90, 0), (0, 90)), SIZE)


@pytest.mark.parametrize("outline", [((0, 0), (9, 9)), ((0, 0), (5, 5), (9, 9)), ((3, 3),) * 4])
def test_an_outline_without_area_is_refused(outline: tuple) -> None:
    with pytest.raises(RegionError, match="no area"):
        checked_shape(_shape(*outline), SIZE)


def test_a_shape_outside_the_slide_is_refused_and_one_across_its_edge_is_kept() -> None:
    with pytest.raises(RegionError, match="outside the slide"):
        checked_shape(_shape((2000, 0), (2100, 0), (2100, 50)), SIZE)
    with pytest.raises(RegionError, match="outside the slide"):
        checked_shape(RegionInput("r", "S-1", Box(-90, 0, 90, 90), 0, "a save key"), SIZE)
    across = _shape((-50, 0), (100, 0), (100, 50))
    assert checked_shape(across, SIZE) == (across, False)


POINT = st.tuples(st.integers(0, 60), st.integers(0, 60))


@given(st.lists(POINT, min_size=3, max_size=9), st.lists(POINT, min_size=3, max_size=5))
def test_what_is_stored_is_valid_and_mending_it_again_changes_nothing(
    outline: list, hole: list
) -> None:
    try:
        stored, _ = checked_shape(_shape(*outline, holes=(tuple(hole),)), SIZE)
    except RegionError:
        return
    assert Polygon(stored.outline, stored.holes).is_valid
    assert checked_shape(stored, SIZE) == (stored, False)
