import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import ndimage

from glomerulab.stain.fitting import fit
from glomerulab.training.augmentation import (
    OnlineAugmentation,
    StainJitter,
    add_noise,
    flip,
    jitter_optical_density,
    jitter_stains,
    mix,
    rotate,
)
from tests.support.beer_lambert import section


def test_the_same_generator_gives_the_same_stain_jitter() -> None:
    image = section(1, size=96).image
    one, other = (jitter_stains(image, np.random.default_rng(5), stain="HE") for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, jitter_stains(image, np.random.default_rng(6), stain="HE"))


def test_tissue_changes_and_glass_hardly_does() -> None:
    truth = section(2, noise=0.0)
    rng = np.random.default_rng(1)
    changes = []
    for _ in range(5):
        out = jitter_stains(truth.image, rng, stain="HE").astype(float)
        bare = truth.amounts.sum(axis=-1) == 0.0
        assert np.abs(out[bare] - truth.image[bare]).max() <= 0.02 * 255.0 + 1.0
        changes.append(np.abs(out - truth.image)[truth.amounts.sum(axis=-1) > 0.3].mean())
    assert min(changes) > 1.0


def test_no_jitter_changes_next_to_nothing() -> None:
    truth = section(3)
    still = StainJitter(amount=0.0, angle_degrees=0.0, white=0.0)
    out = jitter_stains(truth.image, np.random.default_rng(0), stain="HE", jitter=still)
    assert np.abs(out.astype(float) - truth.image).mean() < 1.5


def test_known_stains_are_not_fitted_again() -> None:
    truth = section(4)
    known = fit(truth.image, "HE")
    given = jitter_stains(truth.image, np.random.default_rng(2), stain="HE", source=known)
    assert np.array_equal(given, jitter_stains(truth.image, np.random.default_rng(2), stain="HE"))


def test_a_blank_image_is_copied_and_the_generator_moves_on() -> None:
    blank = np.full((50, 50, 3), 240, dtype=np.uint8)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    out = jitter_stains(blank, rng, stain="HE")
    assert np.array_equal(out, blank)
    assert not np.shares_memory(out, blank)
    jitter_stains(section(5, size=64).image, other, stain="HE")
    assert rng.random() == other.random()


@pytest.mark.parametrize("name", ["amount", "angle_degrees", "white"])
def test_a_jitter_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        StainJitter(**{name: -1.0})


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


IMAGE = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(1))
NOTHING = OnlineAugmentation(rotation=0, flips=False, noise=0, mixup=0, stain_jitter=0)


def _partner(draw: int) -> torch.Tensor:
    return torch.zeros(3, 24, 24)


def test_the_same_generator_gives_the_same_image() -> None:
    augment = OnlineAugmentation()
    first = augment(IMAGE, np.random.default_rng((1, 2, 3)), _partner)
    again = augment(IMAGE, np.random.default_rng((1, 2, 3)), _partner)
    other = augment(IMAGE, np.random.default_rng((1, 2, 4)), _partner)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_stay_images() -> None:
    augment = OnlineAugmentation(noise=1, noise_sigma=0.5, mixup=1)
    for seed in range(50):
        image = augment(IMAGE, np.random.default_rng(seed), _partner)
        assert (image.shape, image.dtype) == (IMAGE.shape, torch.float32)
        assert 0.0 <= image.min() <= image.max() <= 1.0


def test_disabled_augmentation_changes_nothing() -> None:
    assert torch.equal(NOTHING(IMAGE, np.random.default_rng(0), _partner), IMAGE)


def test_mixup_uses_the_partner() -> None:
    only_mixup = NOTHING.model_copy(update={"mixup": 1.0})
    mixed = only_mixup(IMAGE, np.random.default_rng(0), _partner)
    share = (mixed / IMAGE).mean()
    assert 0.0 <= share <= 1.0
    assert torch.allclose(mixed, share * IMAGE, atol=1e-5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        OnlineAugmentation(noise=2)


def test_stains_are_varied_only_on_request() -> None:
    assert OnlineAugmentation().two_stain_jitter is None
    jitter = OnlineAugmentation(stain_amount=0.3, stain_angle=2.0).two_stain_jitter
    assert jitter is not None
    assert (jitter.amount, jitter.angle_degrees, jitter.white) == (0.3, 2.0, 0.0)
