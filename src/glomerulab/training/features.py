"""Features of the images of a manifest, computed once and kept in a folder.

The folder holds Parquet files of some hundred images each, written as soon as they are computed, so
that an interrupted run continues; pandas, Polars and DuckDB read them as one table.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import OutputError
from glomerulab.models.card import ModelCard
from glomerulab.models.networks.probe import FeatureExtractor
from glomerulab.runtime.files import atomic_write, make_folder, size_and_mtime
from glomerulab.runtime.names import hashed_name
from glomerulab.runtime.parquet import read_parquet
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.dataset import CropDataset, ItemKey, batches

__all__ = ["PART_SIZE", "embed", "embed_chunk", "extractor_fingerprint"]

FloatArray = npt.NDArray[np.float32]
FileKey = tuple[str, int, int]
"""Path of an image, its size and its modification time."""

BATCH = 16
PART_SIZE = 256
"""Images per file."""
CHUNK = "chunk-"
"""Begin of the names of files that several processes write."""


def extractor_fingerprint(extractor: FeatureExtractor, card: ModelCard, *, n_stages: int) -> str:
    """Return what identifies the features of a network: its weights and its input."""
    digest = hashlib.sha256()
    for name, tensor in sorted(extractor.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    settings = (n_stages, extractor.n_views, card.input_size, card.mean, card.std)
    digest.update(repr(settings).encode())
    return digest.hexdigest()[:16]


def embed(
    manifest: Manifest,
    extractor: FeatureExtractor,
    card: ModelCard,
    *,
    folder: Path | None = None,
    n_workers: int = 0,
    track: Track = silent,
) -> FloatArray:
    """Compute the features of every image, or read those that the folder holds already.

    Parameters
    ----------
    extractor : FeatureExtractor
        In evaluation mode.
    card : ModelCard
        Of its network: the size and the scale of the images.
    folder : Path, optional
        Of the features of this extractor; None keeps nothing.
    n_workers : int, default 0
        Processes that read images.

    Returns
    -------
    ndarray of float32, shape (n_images, D)
        In the order of the manifest.
    """
    paths = manifest.image_paths()
    keys = [(str(path), *size_and_mtime(path)) for path in paths]
    found = {} if folder is None else dict(_stored(folder))
    missing = [row for row, key in enumerate(keys) if key not in found]
    dataset = CropDataset(
        manifest.with_table(manifest.table.iloc[missing]),
        input_size=card.input_size,
        mean=card.mean,
        std=card.std,
    )
    pending: dict[FileKey, FloatArray] = {}
    computed = _computed(dataset, extractor, n_workers, track) if missing else ()
    for rows, values in computed:
        pending |= {keys[missing[row]]: value for row, value in zip(rows, values, strict=True)}
        if folder is not None and len(pending) >= PART_SIZE:
            _store(pending, folder)
            found |= pending
            pending = {}
    if folder is not None and pending:
        _store(pending, folder)
    found |= pending
    return np.stack([found[key] for key in keys])


def embed_chunk(
    manifest: Manifest, extractor: FeatureExtractor, card: ModelCard, *, folder: Path
) -> int:
    """Store the features of a few images, unless they are there, in a file of their own.

    Several processes may do so side by side; `embed` reads what they stored. Return the number of
    images.
    """
    paths = manifest.image_paths()
    keys = [(str(path), *size_and_mtime(path)) for path in paths]
    name = f"{CHUNK}{hashed_name(repr(keys))}.parquet"
    if not (folder / name).is_file():
        values = embed(manifest, extractor, card)
        _write(dict(zip(keys, values, strict=True)), make_folder(folder) / name)
    return len(keys)


def _computed(
    dataset: CropDataset, extractor: FeatureExtractor, n_workers: int, track: Track
) -> Iterator[tuple[list[int], FloatArray]]:
    """Yield rows and features, batch by batch."""
    device = next(extractor.parameters()).device
    rows = range(len(dataset))
    batched = [[ItemKey(row, 0) for row in rows[at : at + BATCH]] for at in rows[::BATCH]]
    loaded = batches(dataset, batched, n_workers=n_workers)
    for batch in track(loaded, "Computing features", len(batched)):
        images = batch.images.to(device, memory_format=torch.channels_last)
        with torch.inference_mode():
            features: Tensor = extractor(images)
        yield batch.rows.tolist(), features.float().cpu().numpy()


def _stored(folder: Path) -> Iterator[tuple[FileKey, FloatArray]]:
    """Yield the features that a folder holds, by image file."""
    for path in sorted([*folder.glob("part-*.parquet"), *folder.glob(f"{CHUNK}*.parquet")]):
        table = read_parquet(path, name="part of the stored features", error=OutputError)
        try:
            values = np.stack(table["features"].tolist()).astype(np.float32)
            names = [table[name].tolist() for name in ("path", "size", "modified")]
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"the stored features cannot be read ({error}); delete the file to compute them "
                "again",
                where=str(path),
            ) from error
        yield from zip(zip(*names, strict=True), values, strict=True)


def _store(features: dict[FileKey, FloatArray], folder: Path) -> None:
    make_folder(folder)
    # A part may have been deleted, so their count may be the number of another.
    number = max((int(path.stem[5:]) + 1 for path in folder.glob("part-*.parquet")), default=0)
    _write(features, folder / f"part-{number:05d}.parquet")


def _write(features: dict[FileKey, FloatArray], path: Path) -> None:
    paths, sizes, times = zip(*features, strict=True)
    table = pa.table(
        {
            "path": pa.array(paths),
            "size": pa.array(sizes, pa.int64()),
            "modified": pa.array(times, pa.int64()),
            "features": pa.array(list(features.values()), pa.list_(pa.float32())),
        }
    )
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
