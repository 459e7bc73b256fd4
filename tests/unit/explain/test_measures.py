import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch import nn

from glomerulab.explain.measures import (
    N_STEPS,
    RANDOM_SHARES,
    area,
    centre_control,
    deletion_curve,
    energy_inside,
    insertion_curve,
    points_inside,
    random_control,
    randomised_models,
    rank_correlation,
)
from glomerulab.models.registry import create_model
from tests.support.known_networks import small_card


def _mask(*places, shape=(4, 5)):
    mask = np.zeros(shape, dtype=bool)
    for place in places:
        mask[place] = True
    return mask


def test_points_and_energy_equal_a_hand_calculation():
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
def test_energy_inside_and_outside_add_up_to_one(seed):
    rng = np.random.default_rng(seed)
    saliency = rng.random((6, 7)).astype(np.float32)
    mask = rng.random((6, 7)) < 0.4
    mask[0, 0], mask[5, 6] = True, False
    inside = energy_inside(saliency, mask)
    assert inside + energy_inside(saliency, ~mask) == pytest.approx(1.0)
    assert points_inside(saliency, mask) != points_inside(saliency, ~mask)


def test_the_random_control_hits_in_proportion_to_the_mask():
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, :10] = True  # a quarter
    rng = np.random.default_rng(0)
    hits = [points_inside(random_control((40, 40), rng), mask) for _ in range(2000)]
    assert np.mean(hits) == pytest.approx(0.25, abs=0.04)


def test_the_centre_control_points_at_the_centre():
    control = centre_control((31, 31))
    assert np.unravel_index(np.argmax(control), control.shape) == (15, 15)
    assert control[15, 15] == 1.0


class _SumOfFirst(nn.Module):
    """One logit: the mean of the first channel of the upper half."""

    def forward(self, images):
        return 8.0 * images[:, 0, : images.shape[2] // 2].mean(dim=(1, 2))[:, None]


@pytest.fixture
def image():
    image = torch.zeros(3, 16, 16)
    image[0, :8] = 1.0  # mean colour of the first channel: 0.5
    return image


def _upper_first():
    return torch.linspace(1, 0, 256).reshape(16, 16)


def test_deletion_follows_the_closed_form(image):
    curve = deletion_curve(_SumOfFirst(), image, _upper_first(), 0, head="sigmoid")
    share = np.linspace(0, 1, N_STEPS + 1)
    # With a share s of the pixels gone, from the top, the upper half is 1 - 0.5 * min(1, 2 s).
    expected = 1 / (1 + np.exp(-8 * (1 - 0.5 * np.minimum(1, 2 * share))))
    np.testing.assert_allclose(curve, expected, atol=1e-6)


def test_a_correct_map_has_better_areas_than_a_wrong_one(image):
    model, right = _SumOfFirst(), _upper_first()
    wrong = right.flip(0)
    gone = [area(deletion_curve(model, image, m, 0, head="sigmoid")) for m in (right, wrong)]
    come = [area(insertion_curve(model, image, m, 0, head="sigmoid")) for m in (right, wrong)]
    assert gone[0] < gone[1]
    assert come[0] > come[1]


def test_curves_start_or_end_at_the_original_image(image):
    model = _SumOfFirst()
    original = float(torch.sigmoid(model(image[None]))[0, 0])
    saliency = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    assert deletion_curve(model, image, saliency, 0, head="sigmoid")[0] == pytest.approx(original)
    assert insertion_curve(model, image, saliency, 0, head="sigmoid")[-1] == pytest.approx(original)


def test_softmax_curves_are_probabilities(image):
    class Two(nn.Module):
        def forward(self, images):
            return images[:, :2].mean(dim=(2, 3))

    curve = deletion_curve(Two(), image, _upper_first(), 0)
    assert curve[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_the_area_is_that_of_trapezoids():
    assert area(np.array([1.0, 0.0])) == pytest.approx(0.5)
    assert area(np.array([1.0, 1.0, 0.0])) == pytest.approx(0.75)


CARD = small_card()


def test_weights_are_randomised_from_the_classifier_down():
    model = create_model(CARD.model, 4, seed=1).eval()
    n_kept, states = [], []
    for share, forgotten in randomised_models(model, CARD, seed=2):
        states.append(share)
        kept = [
            name
            for name, weight in forgotten.named_parameters()
            if weight.ndim > 1 and torch.equal(weight, model.get_parameter(name))
        ]
        n_kept.append(len(kept))
        assert "classifier.weight" not in kept
        assert not forgotten.training
    assert tuple(states) == RANDOM_SHARES
    assert n_kept == sorted(n_kept, reverse=True)
    assert len(set(n_kept)) == len(RANDOM_SHARES)
    assert n_kept[-1] == 0


def test_randomising_does_not_change_the_model():
    model = create_model(CARD.model, 4, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    list(randomised_models(model, CARD, seed=2))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_correlation_is_pearsons_of_the_ranks():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 9, 7)).astype(np.float32)
    ranks = [rankdata(one) for one in (first, second)]
    assert rank_correlation(first, second) == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert rank_correlation(first, first**3) == pytest.approx(1.0)


def test_an_empty_map_has_no_correlation():
    assert np.isnan(rank_correlation(np.zeros((3, 3), np.float32), np.ones((3, 3), np.float32)))
