import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from glomerulab.augment import add_noise, flip, jitter_optical_density, mix, rotate


def _image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(3))


@given(st.floats(-360, 360), st.integers(8, 40), st.integers(8, 40))
def test_no_angle_leaves_black_corners(degrees: float, height: int, width: int) -> None:
    turned = rotate(torch.full((3, height, width), 0.8), degrees)
    assert turned.shape == (3, height, width)
    assert torch.allclose(turned, torch.tensor(0.8), atol=1e-5)


def test_the_inner_part_is_turned_as_scipy_turns_it() -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 90)), 3)
    image = torch.from_numpy(smooth).float().expand(3, -1, -1)
    ours = rotate(image, 25.0)[0].numpy()
    theirs = ndimage.rotate(smooth, 25.0, reshape=False, order=1)
    assert np.abs(ours - theirs)[22:38, 37:53].max() < 1e-3


def test_quarter_turns_move_pixels_only() -> None:
    image = _image(16, 16)
    assert torch.equal(rotate(image, 90.0), torch.rot90(image, 1, (1, 2)))
    assert torch.equal(rotate(image, -360.0), image)


def test_flips_undo_themselves() -> None:
    image = _image(5, 7)
    once = flip(image, horizontally=True, vertically=False)
    assert torch.equal(once, image.flip(2))
    assert torch.equal(flip(once, horizontally=True, vertically=False), image)
    assert flip(image, horizontally=False, vertically=False) is image


def test_noise_never_leaves_the_range() -> None:
    noisy = add_noise(_image(8, 8), torch.full((3, 8, 8), 2.0))
    assert noisy.max() == 1.0


def test_mixing_is_a_weighted_mean() -> None:
    first, second = torch.zeros(3, 2, 2), torch.ones(3, 2, 2)
    assert mix(first, second, 0.25).unique().tolist() == [0.75]
    with pytest.raises(ValueError, match="shapes differ"):
        mix(first, torch.ones(3, 2, 3), 0.5)
    with pytest.raises(ValueError, match="share must be"):
        mix(first, second, 1.5)


def test_optical_density_is_scaled_and_glass_stays_white() -> None:
    image = torch.tensor([1.0, 0.5, 0.1])[:, None, None].expand(3, 1, 1)
    jittered = jitter_optical_density(image, torch.tensor([1.2, 2.0, 1.0]))
    densities = -jittered.flatten().log() / -image.flatten().log().clamp(max=-1e-9)
    assert jittered[0].item() == 1.0
    assert densities[1:].tolist() == pytest.approx([2.0, 1.0], rel=1e-5)
