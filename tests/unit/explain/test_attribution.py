import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from glomerulab.explain.attribution import (
    METHODS,
    attribute,
    heatmap_overlay,
    mean_colour,
    overlay_beside,
)
from glomerulab.models.registry import MODELS, create_model
from tests.support.known_networks import HEAVY, PooledMaps


@pytest.fixture
def image():
    return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4))


def test_grad_cam_of_a_pooled_network_is_its_class_activation_map(image):
    model = PooledMaps()
    found = attribute(model, image, 1, "grad-cam")
    maps = model.stages[0](image[None])[0].detach()  # (C, 8, 8)
    # Selvaraju et al. 2017, section 3.1: for such a network Grad-CAM is CAM over the map's size.
    cam = torch.einsum("c,chw->hw", model.classifier.weight[1].detach(), maps).relu() / 64
    expected = interpolate(cam[None, None], (32, 32), mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(found, expected, atol=1e-6)


def test_integrated_gradients_of_a_linear_network_are_weight_times_step(image):
    model = PooledMaps()
    weights = torch.autograd.functional.jacobian(lambda x: model(x[None])[0, 0], image)
    white = image.amax(dim=(1, 2), keepdim=True)
    expected = (weights * (image - white)).sum(dim=0).clamp(min=0)
    assert torch.allclose(attribute(model, image, 0, "integrated-gradients"), expected, atol=1e-5)


def test_occlusion_finds_the_only_relevant_patch(image):
    class Corner(PooledMaps):
        def forward(self, images):
            return images[:, :, :8, :8].mean(dim=(1, 2, 3), keepdim=False)[:, None] * 10

    image[:, :8, :8] += 2.0
    found = attribute(Corner(), image, 0, "occlusion")
    assert found[:8, :8].min() > 0
    assert found[12:, :].abs().max() < 1e-5
    assert found[:, 12:].abs().max() < 1e-5


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in MODELS]
)
def test_grad_cam_works_for_every_network(name):
    model = create_model(name, 3, seed=1).eval()
    size = 299 if name == "inception_v3" else 96
    found = attribute(model, torch.rand(3, size, size), 2, "grad-cam")
    assert found.shape == (size, size)
    assert found.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_attribution_leaves_the_model_unchanged_and_is_not_negative(method):
    model = create_model("improved_seresnet_small", 3, seed=1).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = attribute(model, torch.rand(3, 64, 64), 2, method)
    assert (found.shape, found.dtype) == ((64, 64), torch.float32)
    assert found.min() >= 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_unknown_method_is_refused(image):
    with pytest.raises(ValueError, match="grad-cam, integrated-gradients, occlusion, got 'lime'"):
        attribute(PooledMaps(), image, 0, "lime")


def test_the_mean_colour_is_each_channels_mean(image):
    assert torch.allclose(mean_colour(image).flatten(), image.flatten(1).mean(dim=1))


def _image(height=20, width=30):
    return np.full((height, width, 3), (200, 120, 160), dtype=np.uint8)


def test_the_left_half_is_the_unchanged_image():
    drawn = overlay_beside(_image(), np.zeros((8, 8), dtype=np.float32))
    assert drawn.shape == (20, 60, 3)
    assert (drawn[:, :30] == _image()).all()
    grey = drawn[:, 30:]
    assert (grey == 160).all()  # nothing salient: plain grey


def test_salient_pixels_are_coloured_and_the_others_grey():
    saliency = np.zeros((10, 10), dtype=np.float32)
    saliency[2:4, 2:4] = 7.0
    shown = overlay_beside(_image(100, 100), saliency)[:, 100:].astype(int)
    spread = shown.max(axis=2) - shown.min(axis=2)
    assert spread[30, 30] > 60
    assert spread[80, 80] == 0


def test_the_lesion_gets_an_outline():
    mask = np.zeros((100, 100), dtype=bool)
    mask[30:70, 30:70] = True
    shown = overlay_beside(_image(100, 100), np.zeros((100, 100), np.float32), mask=mask)[:, 100:]
    orange = (shown == (213, 94, 0)).all(axis=2)
    assert orange[30, 50]
    assert orange[50, 69]
    assert not orange[50, 50]
    assert not orange[20, 50]


def test_the_right_half_is_the_heatmap_overlay(rng) -> None:
    image = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    saliency = rng.random((5, 5), dtype=np.float32)
    alone = heatmap_overlay(image, saliency)
    assert alone.shape == image.shape
    assert (overlay_beside(image, saliency)[:, 30:] == alone).all()
