"""Crops of a manifest as tensors: decoded, resized, augmented, normalised.

The random numbers of an image depend only on seed, epoch and the image's row, so that they are
the same with any number of workers.
"""

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import GlomerulabError
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, read_crop
from glomerulab.stain.reference import STAIN_PRIORS
from glomerulab.training.augmentation import StainJitter, jitter_stains

__all__ = ["BatchLoader", "CropDataset"]

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
    Resized images are cached up to a gigabyte, which worker processes divide, since decoding is
    the slowest step.
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

    def __getstate__(self) -> dict[str, object]:
        """Return what a worker gets; a loading thread may add to the cache meanwhile."""
        return self.__dict__ | {"_cache": self._cache.copy()}

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
            worker = get_worker_info()
            share = MAX_CACHE_BYTES // (1 if worker is None else worker.num_workers)
            if (len(self._cache) + 1) * pixels.numel() <= share:
                self._cache[row] = pixels
        return pixels


class BatchLoader:
    """Loads batches of several datasets, one ahead of the one in use.

    The worker processes live as long as the loader, so that they import torch once and keep their
    caches from one epoch to the next. Use as a context manager.

    Parameters
    ----------
    datasets : sequence of CropDataset
        All that `batches` will be called with.
    n_workers : int, default 0
        Processes; with 0 a thread of this process loads.
    """

    def __init__(self, datasets: Sequence[CropDataset], *, n_workers: int = 0) -> None:
        self.datasets = list(datasets)
        self.n_workers = n_workers
        self._keys: list[list[tuple[int, ItemKey]]] = []
        self._pool: DataLoader[object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pool = None  # ends the processes

    def batches(self, dataset: CropDataset, keys: Sequence[list[ItemKey]]) -> Iterator[Batch]:
        """Yield the batches of one dataset in order.

        Raises
        ------
        GlomerulabError
            If an image cannot be read, or a worker process was killed.
        """
        number = next(at for at, one in enumerate(self.datasets) if one is dataset)
        # A draw per pass, as a new loader of torch makes, whatever the number of workers.
        torch.empty((), dtype=torch.int64).random_()
        loaded = self._start([[(number, key) for key in part] for part in keys])
        for batch in _from_workers(loaded) if self.n_workers else _one_ahead(loaded):
            if isinstance(batch, GlomerulabError):
                raise batch
            yield batch

    def _start(self, keys: list[list[tuple[int, ItemKey]]]) -> Iterator[Batch | GlomerulabError]:
        self._keys[:] = keys
        if self._pool is None:
            context = multiprocessing.get_context("forkserver") if self.n_workers else None
            if context is not None:
                context.set_forkserver_preload(["__main__", __name__])  # forks then have torch
            self._pool = DataLoader(
                _ItemOrError(self.datasets),
                batch_sampler=self._keys,
                num_workers=self.n_workers,
                collate_fn=_collate,
                multiprocessing_context=context,
                persistent_workers=self.n_workers > 0,
                generator=torch.Generator(),
            )
        return iter(self._pool)


def _from_workers(loaded: Iterator[Batch | GlomerulabError]) -> Iterator[Batch | GlomerulabError]:
    try:
        yield from loaded
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise GlomerulabError(
            "a process that loads images was killed, most often because the memory or the shared "
            "memory (/dev/shm) ran out; set a lower n_workers, or 0, and give --resume"
        ) from error


def batches(
    dataset: CropDataset, keys: Sequence[list[ItemKey]], *, n_workers: int = 0
) -> Iterator[Batch]:
    """Yield the batches of one dataset, with worker processes of their own."""
    with BatchLoader([dataset], n_workers=n_workers) as loader:
        yield from loader.batches(dataset, keys)


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

    def __init__(self, datasets: list[CropDataset]) -> None:
        self.datasets = datasets

    def __getitem__(self, place: tuple[int, ItemKey]) -> object:
        number, key = place
        try:
            return self.datasets[number][key]
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
