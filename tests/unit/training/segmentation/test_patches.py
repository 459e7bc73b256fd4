"""Patches depend on seed, epoch and number alone; masks move with their image."""

import numpy as np
import torch

from glomerulab.models.card import SegmenterCard
from glomerulab.training.augmentation import OnlineAugmentation
from glomerulab.training.dataset import ItemKey
from glomerulab.training.segmentation.patches import PatchDataset
from glomerulab.training.segmentation.sets import open_fields
from tests.unit.training.segmentation.conftest import Configure, MakeFields, disc_set

CARD = SegmenterCard(
    encoder="mobilenetv2_050",
    structures=("glomerulus",),
    cores=("glomerulus",),
    mpp=1.0,
    patch_px=64,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
STRONG = OnlineAugmentation(mixup=0.0, noise=1.0, stain_jitter=0.2)


def dataset(make_fields: MakeFields, configure: Configure, *, seed: int = 0) -> PatchDataset:
    config = configure(disc_set(make_fields(2)), seed=seed)
    fields = open_fields(config).usable
    return PatchDataset(fields, CARD, config, n_patches=8, augmentation=STRONG)


def test_a_patch_is_the_same_whenever_it_is_read(
    make_fields: MakeFields, configure: Configure
) -> None:
    one, again = (dataset(make_fields, configure) for _ in range(2))
    other = dataset(make_fields, configure, seed=1)
    for number in (5, 0):
        image, targets, _ = one[ItemKey(number, 3)]
        torch.testing.assert_close(again[ItemKey(number, 3)][0], image, rtol=0, atol=0)
        assert torch.equal(again[ItemKey(number, 3)][1], targets)
        assert not torch.equal(again[ItemKey(number, 4)][0], image)
        assert not torch.equal(other[ItemKey(number, 3)][0], image)


def test_masks_move_with_their_image(make_fields: MakeFields, configure: Configure) -> None:
    patches = dataset(make_fields, configure)
    agreement = []
    for number in range(8):
        image, targets, _ = patches[ItemKey(number, 0)]
        assert image.shape == (3, 64, 64)
        assert targets.shape == (2, 64, 64)
        assert targets.dtype == torch.uint8
        is_disc = image.sum(0) < 1.85
        agreement.append(float((is_disc == (targets[0] == 1)).float().mean()))
        assert ((targets[1] == 1) <= (targets[0] == 1)).all()
    assert np.mean(agreement) > 0.95


def test_most_patches_show_a_structure(make_fields: MakeFields, configure: Configure) -> None:
    patches = dataset(make_fields, configure)
    shares = [float((patches[ItemKey(n, 0)][1][0] == 1).float().mean()) for n in range(8)]
    assert np.count_nonzero(shares) >= 5
