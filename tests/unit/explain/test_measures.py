import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.explain.measures import (
    centre_control,
    energy_inside,
    points_inside,
    random_control,
)


def _mask(*places, shape=(4, 5)):
    mask = np.zeros(shape, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def test_by_hand():
    saliency = np.zeros((4, 5), dtype=np.float32)
    saliency[1, 2], saliency[3, 4], saliency[0, 0] = 3.0, 1.0, 1.0
    assert points_inside(saliency, _mask((1, 2)))
    assert not points_inside(saliency, _mask((3, 4)))
    assert energy_inside(saliency, _mask((1, 2), (0, 0))) == pytest.approx(0.8)
    assert energy_inside(saliency, _mask((2, 2))) == 0.0


def test_a_map_of_zeros_points_nowhere():
    nothing = np.zeros((4, 5), dtype=np.float32)
    assert not points_inside(nothing, _mask((0, 0)))
    assert np.isnan(energy_inside(nothing, _mask((0, 0))))


def test_shapes_that_differ_and_empty_masks_are_refused():
    with pytest.raises(ValueError, match=r"saliency has shape \(4, 4\), the mask \(4, 5\)"):
        points_inside(np.ones((4, 4), dtype=np.float32), _mask((0, 0)))
    with pytest.raises(ValueError, match="the mask is empty"):
        energy_inside(np.ones((4, 5), dtype=np.float32), _mask())


@given(st.integers(0, 2**32 - 1))
def test_energy_is_a_share_and_inside_and_outside_are_all(seed):
    rng = np.random.default_rng(seed)
    saliency = rng.random((6, 7)).astype(np.float32)
    mask = rng.random((6, 7)) < 0.4
    mask[0, 0], mask[5, 6] = True, False
    inside = energy_inside(saliency, mask)
    assert inside + energy_inside(saliency, ~mask) == pytest.approx(1.0)
    assert points_inside(saliency, mask) != points_inside(saliency, ~mask)


def test_the_random_control_hits_as_often_as_the_mask_is_large():
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, :10] = True  # a quarter
    rng = np.random.default_rng(0)
    hits = [points_inside(random_control((40, 40), rng), mask) for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(0.25, abs=0.04)


def test_the_centre_control_points_at_the_centre():
    control = centre_control((31, 31))
    assert np.unravel_index(np.argmax(control), control.shape) == (15, 15)
    assert control[15, 15] == 1.0
