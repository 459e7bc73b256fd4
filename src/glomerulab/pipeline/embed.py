"""Features of the images of a manifest as one table, for work outside the package."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.errors import ConfigError
from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.networks.probe import VIEW_COUNTS, FeatureExtractor, Probe
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import SettingsFile, folder_lock
from glomerulab.training.config import TrainConfig
from glomerulab.training.features import embed, extractor_fingerprint
from glomerulab.training.probe import n_pretrained_stages
from glomerulab.training.run import initial_network

__all__ = ["WrittenFeatures", "write_features"]

COPIED = ("image_id", "patient_id", "slide_id", "stain", "split", "fold")


@dataclass(frozen=True, slots=True)
class WrittenFeatures:
    """The table of features."""

    path: Path
    n_images: int
    n_features: int


def write_features(
    manifest_path: Path,
    model: str,
    out: Path,
    *,
    weights: str = "imagenet",
    n_views: int = 1,
    n_workers: int = 0,
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

    Raises
    ------
    ConfigError
        If the network is unknown.
    OutputError
        If the folder holds features of another network or other settings.
    """
    if n_views not in VIEW_COUNTS:
        raise ConfigError(f"views must be one of {VIEW_COUNTS}, got {n_views}")
    manifest = read_manifest(manifest_path)
    network, card, n_stages = _network(model, weights, manifest, out)
    if isinstance(network, Probe):  # which has an extractor already
        extractor = network.features
        extractor.n_views = n_views
    else:
        extractor = FeatureExtractor(network, n_stages=n_stages, n_views=n_views).eval()
    fingerprint = extractor_fingerprint(extractor, card, n_stages=n_stages)
    make_folder(out)
    with folder_lock(out, ".embed.lock"):
        SettingsFile(out / "features.json").continue_or_refuse(
            {"research_use_only": True, "model": model, "weights": weights, "n_views": n_views}
            | {"fingerprint": fingerprint},
            way_out="give another --out, or delete this one",
        )
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


def _network(
    model: str, weights: str, manifest: Manifest, out: Path
) -> tuple[nn.Module, ModelCard, int]:
    """Return a network with its weights, its card, and the number of stages to take (0: all)."""
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        network, card = load_checkpoint(Path(model))
        if isinstance(network, Probe):
            return network, card, int(card.options["n_stages"])  # type: ignore[arg-type]
        return network, card, 0
    config = TrainConfig.model_validate(
        {"manifest": manifest.file or manifest.folder, "out": out, "model": {"name": model}}
        | {"start": {"weights": None if weights == "random" else weights}}
    )
    network, card, start = initial_network(config, manifest)
    return network, card, n_pretrained_stages(network, start.pretrained, input_size=card.input_size)
