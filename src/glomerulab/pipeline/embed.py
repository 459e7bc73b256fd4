"""Features of the images of a manifest as one table, for work outside the package."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import nn

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import ConfigError, GlomerulabError
from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.networks.probe import VIEW_COUNTS, FeatureExtractor, Probe
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.kept import kept
from glomerulab.runtime.parallel import Workers, map_outcomes, part_slice
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile, folder_lock
from glomerulab.training.config import TrainConfig
from glomerulab.training.features import PART_SIZE, embed, embed_chunk, extractor_fingerprint
from glomerulab.training.probe import n_pretrained_stages
from glomerulab.training.run import initial_network

__all__ = ["WrittenFeatures", "write_features"]

COPIED = ("image_id", "patient_id", "slide_id", "stain", "split", "fold")


@dataclass(frozen=True, slots=True)
class WrittenFeatures:
    """The table of features."""

    path: Path
    """The table, or the folder of a part."""
    n_images: int
    n_features: int | None
    """None of a part."""


def write_features(
    manifest_path: Path,
    model: str,
    out: Path,
    *,
    weights: str = "imagenet",
    n_views: int = 1,
    n_workers: int = 0,
    workers: Workers | None = None,
    part: tuple[int, int] | None = None,
    track: Track = silent,
) -> WrittenFeatures:
    """Compute the features of every image, and write them as ``features.parquet``.

    Parameters
    ----------
    model : str
        A network of the registry, or a run folder.
    weights : str, default "imagenet"
        Initial weights of a network of the registry; ``random`` for none.
    n_views : {1, 2, 4, 8}, default 1
        Orientations whose features are averaged.
    n_workers : int, default 0
        Processes that read images.
    workers : Workers, optional
        Of a cluster, which sees the same paths and computes the features.
    part : tuple of int, optional
        Number of a part and how many there are: compute its features and write no table. When all
        parts are done, a call without it writes the table.

    Raises
    ------
    ConfigError
        If the network is unknown.
    OutputError
        If the folder holds features of another network or other settings.
    """
    if n_views not in VIEW_COUNTS:
        raise ConfigError(f"views must be one of {VIEW_COUNTS}, got {n_views}")
    manifest, extractor, card, fingerprint = _prepare(manifest_path, model, weights, n_views)
    make_folder(out)
    lock = ".embed.lock" if part is None else f".embed.{part[0]}-{part[1]}.lock"
    with folder_lock(out, lock):
        SettingsFile(out / "features.json").continue_or_refuse(
            {"research_use_only": True, "model": model, "weights": weights, "n_views": n_views}
            | {"fingerprint": fingerprint},
            way_out="give another --out, or delete this one",
        )
        if workers is not None or part is not None:
            compute = partial(
                _compute_chunk,
                prepared=(manifest_path.absolute(), _placed(model), _placed(weights), n_views),
                folder=(out / "parts").absolute(),
            )
            n_rows = len(manifest.table)
            chunks = [range(at, min(at + PART_SIZE, n_rows)) for at in range(0, n_rows, PART_SIZE)]
            chunks = chunks[part_slice(part or (1, 1), len(chunks))]
            failed: dict[int, GlomerulabError] = {}
            with closing(map_outcomes(compute, chunks, workers=workers)) as outcomes:
                for outcome in track(outcomes, "Computing features", len(chunks)):
                    if outcome.error is not None:  # the others are computed all the same
                        failed[outcome.item.start] = outcome.error
            if failed:
                raise _error_of(failed, manifest)
        if part is not None:
            n_images = sum(len(chunk) for chunk in chunks)
            return WrittenFeatures(out / "parts", n_images, None)
        features = embed(
            manifest, extractor, card, folder=out / "parts", n_workers=n_workers, track=track
        )
        table = manifest.table[[*COPIED, *manifest.taxonomy.label_ids]]
        names = [f"feature_{number}" for number in range(features.shape[1])]
        values = pd.DataFrame(features, columns=names)
        path = out / "features.parquet"
        with atomic_write(path) as temporary:
            pd.concat([table, values], axis="columns").to_parquet(temporary, index=False)
    return WrittenFeatures(path, *features.shape)


def _error_of(failed: Mapping[int, GlomerulabError], manifest: Manifest) -> GlomerulabError:
    """Return the error of the first of the chunks that failed, which are known by first row."""
    row = min(failed)
    error, first = failed[row], manifest.table["image_id"].iloc[row]
    more = f" ({len(failed) - 1} more groups of images failed)" if len(failed) > 1 else ""
    return type(error)(
        f"{error.message}{more}",
        where=error.where or f"{manifest.location}, {PART_SIZE} images from {first!r} on",
    )


def _placed(name: str) -> str | Path:
    """Return a file or folder as its absolute path, which workers elsewhere find and watch."""
    return Path(name).absolute() if Path(name).exists() else name


def _prepare(
    manifest_path: Path, model: str | Path, weights: str | Path, n_views: int
) -> tuple[Manifest, FeatureExtractor, ModelCard, str]:
    """Return manifest, extractor, card and the fingerprint of the extractor."""
    manifest = read_manifest(manifest_path)
    network, card, n_stages = _network(str(model), str(weights), manifest)
    if isinstance(network, Probe):  # which has an extractor already
        extractor = network.features
        extractor.n_views = n_views
    else:
        extractor = FeatureExtractor(network, n_stages=n_stages, n_views=n_views).eval()
    return manifest, extractor, card, extractor_fingerprint(extractor, card, n_stages=n_stages)


def _compute_chunk(
    rows: range, *, prepared: tuple[Path, str | Path, str | Path, int], folder: Path
) -> int:
    manifest, extractor, card, _ = kept(_prepare, *prepared)
    chunk = manifest.with_table(manifest.table.iloc[rows.start : rows.stop])
    return embed_chunk(chunk, extractor, card, folder=folder)


def _network(model: str, weights: str, manifest: Manifest) -> tuple[nn.Module, ModelCard, int]:
    """Return a network with its weights, its card, and the number of stages to take (0: all)."""
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        network, card = load_checkpoint(Path(model))
        if isinstance(network, Probe):
            return network, card, int(card.options["n_stages"])  # type: ignore[arg-type]
        return network, card, 0
    config = TrainConfig.model_validate(
        {"manifest": manifest.file or manifest.folder, "out": Path(), "model": {"name": model}}
        | {"start": {"weights": None if weights == "random" else weights}}
    )
    network, card, start = initial_network(config, manifest)
    return network, card, n_pretrained_stages(network, start.pretrained, input_size=card.input_size)
