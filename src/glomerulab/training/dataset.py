"""Crops of a manifest as tensors: decoded, resized, augmented, normalised.

The random numbers of an image depend only on seed, epoch and the image's row, so that they are
the same with any number of workers.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import GlomerulabError
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_crop
from glomerulab.stain.reference import STAIN_PRIORS
from glomerulab.training.augmentation import StainJitter, jitter_stains

__all__ = ["CropDataset"]

MAX_CACHE_BYTES = 1_000_000_000
STAIN_JITTER_STREAM = 1

Augment = Callable[[Tensor, np.random.Generator, Callable[[int], Tensor]], Tensor]
"""Takes float (3, H, W) in 0 to 1, a generator, and a function that maps any integer to another
image with the same labels; returns an image of the same shape."""


class ItemKey(NamedTuple):
    """Row and epoch of an image: with the seed, all that its random numbers depend on."""

    row: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Images, labels and rows of one micro-batch."""

    images: Tensor
    """float32, (B, 3, H, W), normalised."""
    labels: Tensor
    """float32, (B, K): 1, 0, or NaN where unknown and not excluded by a label that is present."""
    rows: Tensor
    """int64, (B,): rows of the manifest."""


class CropDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Images and labels of a manifest by row.

    Notes
    -----
    Resized images are cached up to a gigabyte per process, since decoding is the slowest step.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        input_size: int,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        augment: Augment | None = None,
        two_stain_jitter: StainJitter | None = None,
        seed: int = 0,
    ) -> None:
        self.paths = manifest.image_paths()
        labels = _labels(manifest)
        self.labels = torch.from_numpy(labels).float()  # (N, K)
        self.input_size = input_size
        self.mean = torch.tensor(mean)[:, None, None]
        self.std = torch.tensor(std)[:, None, None]
        self.augment = augment
        self.two_stain_jitter = two_stain_jitter
        self.stains = [str(stain) for stain in manifest.table["stain"].fillna("")]
        self.seed = seed
        self.same_labels = _same_label_sets(labels)
        self._cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __getitem__(self, key: ItemKey | int) -> tuple[Tensor, Tensor, int]:
        """Return image (3, H, W), labels (K,) and row; a key without an epoch means epoch 0."""
        row, epoch = key if isinstance(key, tuple) else (key, 0)
        image = self._load(row) if self.two_stain_jitter is None else self._jittered(row, epoch)
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, epoch, row))
            partners = self.same_labels[row]
            image = self.augment(
                image, rng, lambda draw: self._load(int(partners[draw % len(partners)]))
            )
        return (image - self.mean) / self.std, self.labels[row], row

    def without_augmentation(self) -> "CropDataset":
        """Return a copy without augmentation that shares the cache."""
        original = copy.copy(self)
        original.augment = original.two_stain_jitter = None
        return original

    def _load(self, row: int) -> Tensor:
        """Return one image as float (3, H, W) in 0 to 1."""
        return self._pixels(row).float() / 255.0

    def _jittered(self, row: int, epoch: int) -> Tensor:
        """Return one image with its stains varied, if they have a prior."""
        stain = self.stains[row]
        if self.two_stain_jitter is None or stain not in STAIN_PRIORS:
            return self._load(row)
        # A separate stream, so that the other random numbers do not depend on this option.
        rng = np.random.default_rng((self.seed, epoch, row, STAIN_JITTER_STREAM))
        image = self._pixels(row).permute(1, 2, 0).contiguous().numpy()
        varied = jitter_stains(image, rng, stain=stain, jitter=self.two_stain_jitter)
        return torch.from_numpy(varied).permute(2, 0, 1).contiguous().float() / 255.0

    def _pixels(self, row: int) -> Tensor:
        """Return one image as uint8 (3, H, W), decoded and resized or from the cache."""
        pixels = self._cache.get(row)
        if pixels is None:
            pixels = read_crop(self.paths[row], self.input_size)
            if (len(self._cache) + 1) * pixels.numel() <= MAX_CACHE_BYTES:
                self._cache[row] = pixels
        return pixels


def batches(
    dataset: CropDataset, keys: Sequence[list[ItemKey]], *, n_workers: int = 0
) -> Iterator[Batch]:
    """Load batches in order, one ahead of the one in use."""
    loader = DataLoader(
        _ItemOrError(dataset),
        batch_sampler=keys,
        num_workers=n_workers,
        collate_fn=_collate,
        multiprocessing_context="forkserver" if n_workers else None,
    )
    # Created here and not on the thread, since it draws from torch's generator, as training does.
    loaded = iter(loader)
    for batch in loaded if n_workers else _one_ahead(loaded):
        if isinstance(batch, GlomerulabError):
            raise batch
        yield batch


def _one_ahead(loaded: Iterator[Batch | GlomerulabError]) -> Iterator[Batch | GlomerulabError]:
    """Load the next batch on a thread, while the last one is in use."""
    with ThreadPoolExecutor(1, initializer=_use_one_core) as thread:
        coming = thread.submit(next, loaded, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, loaded, None)
            yield batch


def _use_one_core() -> None:
    """Limit tensor operations of this thread to one core: the other cores are training."""
    torch.get_num_threads()  # the first call in a thread makes torch initialise its pool
    threadpool_limits(1, user_api="openmp")


class _ItemOrError(Dataset[object]):
    """Return errors as values, since torch would put a worker's traceback into the message."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: ItemKey) -> object:
        try:
            return self.dataset[key]
        except GlomerulabError as error:
            return error


def _collate(items: list[tuple[Tensor, Tensor, int] | GlomerulabError]) -> Batch | GlomerulabError:
    loaded = []
    for item in items:
        if isinstance(item, GlomerulabError):
            return item
        loaded.append(item)
    return Batch(
        torch.stack([image for image, _, _ in loaded]),
        torch.stack([labels for _, labels, _ in loaded]),
        torch.tensor([index for _, _, index in loaded]),
    )


def _labels(manifest: Manifest) -> npt.NDArray[np.float64]:
    """Return the labels, with 0 for an unknown label that a present one excludes."""
    known = manifest.labels()
    excluded = (known == 1).astype(np.intp) @ manifest.taxonomy.exclusions > 0
    known[excluded & np.isnan(known)] = 0.0
    return known


def _same_label_sets(labels: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int64]]:
    """Return for each row the indices of all rows with identical labels, including itself."""
    indices: dict[bytes, list[int]] = {}
    keys = [np.nan_to_num(row, nan=-1.0).tobytes() for row in labels]
    for index, key in enumerate(keys):
        indices.setdefault(key, []).append(index)
    arrays = {key: np.asarray(found) for key, found in indices.items()}
    return [arrays[key] for key in keys]
