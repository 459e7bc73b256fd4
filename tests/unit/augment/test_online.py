import numpy as np
import pytest
import torch
from pydantic import ValidationError

from glomerulab.augment import OnlineAugmentation

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


def test_switched_off_changes_nothing() -> None:
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


def test_stains_are_varied_only_if_asked() -> None:
    assert OnlineAugmentation().restaining is None
    asked = OnlineAugmentation(stain_amount=0.3, stain_angle=2.0).restaining
    assert asked is not None
    assert (asked.amount, asked.angle_degrees, asked.white) == (0.3, 2.0, 0.0)
