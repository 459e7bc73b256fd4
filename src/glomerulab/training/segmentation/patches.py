"""Patches of fields as tensors: chosen, read, augmented, normalised.

Everything about a patch depends on the seed, the epoch and its number, so that the patches are the
same with any number of workers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from glomerulab.models.card import SegmenterCard
from glomerulab.stain.reference import STAIN_PRIORS
from glomerulab.training.augmentation import OnlineAugmentation, jitter_stains
from glomerulab.training.dataset import ItemKey
from glomerulab.training.segmentation.config import SegmenterConfig
from glomerulab.training.segmentation.fields import Field

__all__ = ["PatchDataset"]


class PatchDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Random patches of fields with the target of each channel.

    Parameters
    ----------
    fields : sequence of Field
        At least one.
    augmentation : OnlineAugmentation, optional
        Without it patches are of the exact scale, and as they are.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        card: SegmenterCard,
        config: SegmenterConfig,
        *,
        n_patches: int,
        augmentation: OnlineAugmentation | None,
    ) -> None:
        self.fields = list(fields)
        self.n_patches = n_patches
        self.augmentation = augmentation
        self._config = config
        self._n_structures = len(card.structures)
        self._cores = [card.structures.index(one) for one in card.cores]
        self._mean = torch.tensor(card.mean)[:, None, None]
        self._std = torch.tensor(card.std)[:, None, None]
        with_structure = {
            k: [one for one in self.fields if k in one.anchors] for k in range(self._n_structures)
        }
        self._with_structure = [(k, some) for k, some in with_structure.items() if some]

    def __len__(self) -> int:
        """Return the number of patches of an epoch."""
        return self.n_patches

    def __getitem__(self, key: ItemKey) -> tuple[Tensor, Tensor, int]:
        """Return image (3, P, P), targets (K + C, P, P) of 0, 1 or 2 for unknown, and number."""
        number, epoch = key
        rng = np.random.default_rng((self._config.seed, epoch, number))
        field, centre = self._place(rng)
        patch_px, side = self._config.patch_px, float(self._config.patch_px)
        if self.augmentation is not None and self._config.scale_jitter:
            side *= (1.0 + self._config.scale_jitter) ** rng.uniform(-1.0, 1.0)
        pixels, labels = field.read(centre, side, patch_px)
        jitter = None if self.augmentation is None else self.augmentation.two_stain_jitter
        if jitter is not None and field.facts.stain in STAIN_PRIORS:
            pixels = jitter_stains(pixels, rng, stain=str(field.facts.stain), jitter=jitter)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255.0
        targets = torch.from_numpy(labels.targets(self._n_structures, self._cores))
        if self.augmentation is not None:
            image, moved = self.augmentation.with_masks(image, targets.float(), rng)
            targets = moved.to(torch.uint8)
        return (image - self._mean) / self._std, targets, number

    def _place(self, rng: np.random.Generator) -> tuple[Field, tuple[float, float]]:
        """Choose a field and the centre of a patch: on a structure, or anywhere."""
        is_random = rng.random() < self._config.random_share
        if is_random or not self._with_structure:
            field = self.fields[rng.integers(len(self.fields))]
            return field, field.somewhere(rng)
        k, fields = self._with_structure[rng.integers(len(self._with_structure))]
        field = fields[rng.integers(len(fields))]
        left, top, right, bottom = field.anchors[k][rng.integers(len(field.anchors[k]))]
        across, down = rng.random(2)
        return field, (left + across * (right - left), top + down * (bottom - top))
