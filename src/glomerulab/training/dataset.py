"""Crops of a manifest as tensors: decoded, resized, perhaps augmented, normalised.

What is drawn for an image depends on seed, epoch and the image's place alone, so that it is the
same with any number of workers. This is the first place of the pipeline that knows torch.
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

from glomerulab.augment import StainJitter, jitter_stains
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import GlomerulabError
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_crop
from glomerulab.stain.reference import STAIN_PRIORS

__all__ = ["Augment", "Batch", "CropDataset", "ItemKey", "batches"]

MAX_CACHE_BYTES = 1_000_000_000
RESTAINING_STREAM = 1

Augment = Callable[[Tensor, np.random.Generator, Callable[[int], Tensor]], Tensor]
"""Takes float (3, H, W) in 0 to 1, a generator, and a function that gives the image of another
place of the same label set (its argument is any integer); returns an image of the same shape."""


class ItemKey(NamedTuple):
    """Which image, in which epoch: all that random choices depend on beside the seed."""

    place: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one step and what is known of them."""

    images: Tensor
    """float32, (B, 3, H, W), normalised."""
    labels: Tensor
    """float32, (B, K): 1, 0, or NaN where unknown and not excluded by a label that is present."""
    places: Tensor
    """int64, (B,): rows of the manifest."""


class CropDataset(Dataset[tuple[Tensor, Tensor, int]]):
    """Images and labels of a manifest by place.

    Parameters
    ----------
    manifest : Manifest
        Every row of it is an item, in order.
    input_size : int
        Height and width of the tensors, px. The whole crop is resized to it, antialiased; its
        aspect ratio is not kept, as in the paper.
    mean, std : sequence of 3 float
        Subtracted from, and divided into, each channel of values from 0 to 1.
    augment : callable, optional
        See `Augment`; none for images that are only judged.
    restaining : StainJitter, optional
        Varies the two stains of each image before `augment`; images of a stain without prior, or
        that show no two stains, stay as they are.
    seed : int, default 0

    Notes
    -----
    Resized images are kept in memory up to a gigabyte per process: decoding a file costs more than
    all that follows.
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
        """Return image (3, H, W), labels (K,) and place.

        Parameters
        ----------
        key : ItemKey or int
            An integer is that place in epoch 0.

        Returns
        -------
        tuple

        Raises
        ------
        ImageFileError
            If the file cannot be read; it names the file.
        """
        place, epoch = key if isinstance(key, tuple) else (key, 0)
        image = (
            self._load(place) if self.two_stain_jitter is None else self._restained(place, epoch)
        )
        if self.augment is not None:
            rng = np.random.default_rng((self.seed, epoch, place))
            partners = self.same_labels[place]
            image = self.augment(
                image, rng, lambda draw: self._load(int(partners[draw % len(partners)]))
            )
        return (image - self.mean) / self.std, self.labels[place], place

    def without_augmentation(self) -> "CropDataset":
        """Return the same images as they are; what is in memory is shared."""
        plain = copy.copy(self)
        plain.augment = plain.two_stain_jitter = None
        return plain

    def _load(self, place: int) -> Tensor:
        """Decode and resize one image to float (3, H, W) in 0 to 1."""
        return self._pixels(place).float() / 255.0

    def _restained(self, place: int, epoch: int) -> Tensor:
        """Load one image with its stains varied, if they are known."""
        stain = self.stains[place]
        if self.two_stain_jitter is None or stain not in STAIN_PRIORS:
            return self._load(place)
        # A stream of its own: what else is drawn for an image does not depend on this option.
        rng = np.random.default_rng((self.seed, epoch, place, RESTAINING_STREAM))
        image = self._pixels(place).permute(1, 2, 0).contiguous().numpy()
        varied = jitter_stains(image, rng, stain=stain, jitter=self.two_stain_jitter)
        return torch.from_numpy(varied).permute(2, 0, 1).contiguous().float() / 255.0

    def _pixels(self, place: int) -> Tensor:
        """Decode and resize one image to uint8 (3, H, W), or take it from memory."""
        pixels = self._cache.get(place)
        if pixels is None:
            pixels = read_crop(self.paths[place], self.input_size)
            if (len(self._cache) + 1) * pixels.numel() <= MAX_CACHE_BYTES:
                self._cache[place] = pixels
        return pixels


def batches(
    dataset: CropDataset, keys: Sequence[list[ItemKey]], *, n_workers: int = 0
) -> Iterator[Batch]:
    """Load batches in order, one ahead of the one in use, on other processes if asked.

    Parameters
    ----------
    dataset : CropDataset
    keys : sequence of list of ItemKey
        The items of each batch.
    n_workers : int, default 0
        Processes that load ahead; 0 loads on a thread of this one.

    Yields
    ------
    Batch

    Raises
    ------
    GlomerulabError
        What an image raised, whole, whichever process it came from.
    """
    loader = DataLoader(
        _OrItsError(dataset),
        batch_sampler=keys,
        num_workers=n_workers,
        collate_fn=_collate,
        multiprocessing_context="forkserver" if n_workers else None,
    )
    # Made here and not on the thread: it draws from torch's generator, which training draws from.
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
    """Keep this thread's share of a tensor operation to itself: the other cores are training."""
    torch.get_num_threads()  # torch sets it up for a new thread the first time it is asked
    threadpool_limits(1, user_api="openmp")


class _OrItsError(Dataset[object]):
    """Give errors as values: torch would paste a worker's traceback into the message."""

    def __init__(self, dataset: CropDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: ItemKey) -> object:
        try:
            return self.dataset[key]
        except GlomerulabError as error:
            return error


def _collate(items: list[tuple[Tensor, Tensor, int] | GlomerulabError]) -> Batch | GlomerulabError:
    whole = []
    for item in items:
        if isinstance(item, GlomerulabError):
            return item
        whole.append(item)
    return Batch(
        torch.stack([image for image, _, _ in whole]),
        torch.stack([labels for _, labels, _ in whole]),
        torch.tensor([place for _, _, place in whole]),
    )


def _labels(manifest: Manifest) -> npt.NDArray[np.float64]:
    """Return the labels, and 0 where nobody said but a label that is present excludes it."""
    columns = list(manifest.taxonomy.label_ids)
    known = manifest.table[columns].to_numpy(dtype=np.float64, na_value=np.nan)
    excluded = (known == 1).astype(np.intp) @ manifest.taxonomy.exclusions > 0
    known[excluded & np.isnan(known)] = 0.0
    return known


def _same_label_sets(labels: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int64]]:
    """For each row the places of the rows with the very same labels, itself among them."""
    places: dict[bytes, list[int]] = {}
    names = [np.nan_to_num(row, nan=-1.0).tobytes() for row in labels]
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    arrays = {name: np.asarray(found) for name, found in places.items()}
    return [arrays[name] for name in names]
