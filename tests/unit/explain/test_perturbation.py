import numpy as np
import pytest
import torch
from torch import nn

from glomerulab.explain.perturbation import N_STEPS, area, deletion_curve, insertion_curve


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


def test_a_right_map_deletes_faster_and_inserts_sooner_than_a_wrong_one(image):
    model, right = _SumOfFirst(), _upper_first()
    wrong = right.flip(0)
    gone = [area(deletion_curve(model, image, m, 0, head="sigmoid")) for m in (right, wrong)]
    come = [area(insertion_curve(model, image, m, 0, head="sigmoid")) for m in (right, wrong)]
    assert gone[0] < gone[1]
    assert come[0] > come[1]


def test_curves_begin_and_end_with_the_whole_image(image):
    model = _SumOfFirst()
    whole = float(torch.sigmoid(model(image[None]))[0, 0])
    saliency = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    assert deletion_curve(model, image, saliency, 0, head="sigmoid")[0] == pytest.approx(whole)
    assert insertion_curve(model, image, saliency, 0, head="sigmoid")[-1] == pytest.approx(whole)


def test_under_softmax_the_curve_is_a_softmax_probability(image):
    class Two(nn.Module):
        def forward(self, images):
            return images[:, :2].mean(dim=(2, 3))

    curve = deletion_curve(Two(), image, _upper_first(), 0)
    assert curve[0] == pytest.approx(1 / (1 + np.exp(-0.5)))


def test_the_area_is_that_of_trapezoids():
    assert area(np.array([1.0, 0.0])) == pytest.approx(0.5)
    assert area(np.array([1.0, 1.0, 0.0])) == pytest.approx(0.75)
