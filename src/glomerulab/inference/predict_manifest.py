"""What a trained model says of every image of a manifest, as a predictions table.

`evaluate --on` judges what this gives; whoever predicts crops of slides can build on it: an image
file that cannot be read becomes a failure beside the table and stops nothing. It knows checkpoints
and manifests, and nothing of slides or training.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from glomerulab.cohort.dataset import read_crop
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import TaxonomyError
from glomerulab.models.checkpoint import ModelCard, load_checkpoint
from glomerulab.models.heads import probabilities
from glomerulab.models.parts import features_seen
from glomerulab.parallel import Outcome, map_outcomes
from glomerulab.predictions import predictions_table
from glomerulab.progress import Track, silent

__all__ = ["ManifestPredictions", "predict_manifest"]

FloatArray = npt.NDArray[np.float64]


class _Item(NamedTuple):
    place: int
    path: Path


@dataclass(frozen=True)
class ManifestPredictions:
    """What a model said, and of which images it could not."""

    table: pd.DataFrame
    """Predictions of the images that could be read, in the order of the manifest."""
    features: npt.NDArray[np.float32]
    """Shape (n, D): the vector the classifier saw of each image of `table`."""
    failures: tuple[Outcome[str, None], ...]
    """Ids of the images that could not be read, each with its error."""


def predict_manifest(
    checkpoint: Path,
    manifest: Manifest,
    *,
    batch_size: int = 16,
    n_workers: int = 1,
    track: Track = silent,
) -> ManifestPredictions:
    """Let a checkpoint judge every image of a manifest.

    Parameters
    ----------
    checkpoint : Path
        A run folder, or its ``checkpoint`` folder.
    manifest : Manifest
        Of the labels that the model answers.
    batch_size : int, default 16
    n_workers : int, default 1
        Processes that decode images.
    track : Track, default silent

    Returns
    -------
    ManifestPredictions

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or altered.
    TaxonomyError
        If the manifest has other labels than the model.
    GlomerulabError
        The error of the first image, if not a single one can be read.
    """
    model, card = load_checkpoint(checkpoint)
    _refuse_other_labels(card, manifest)
    model = model.to(_device()).to(memory_format=torch.channels_last)
    items = [_Item(place, path) for place, path in enumerate(manifest.image_paths())]
    read = partial(_read, input_size=card.input_size)
    outcomes = track(map_outcomes(read, items, n_workers=n_workers), "Predicting", len(items))
    failed: list[Outcome[_Item, Tensor]] = []
    places: list[int] = []
    logits: list[Tensor] = []
    with features_seen(model) as features:
        for batch in _batches(outcomes, batch_size, failed):
            places += [place for place, _ in batch]
            logits.append(_forward(model, card, [pixels for _, pixels in batch]))
    if not places and failed:
        raise failed[0].error or AssertionError  # an outcome without value has its error
    order = np.argsort(places)
    values = probabilities(torch.cat(logits), card.head).numpy() if logits else _none(card)
    rows = manifest.table.iloc[np.asarray(places, dtype=np.intp)[order]]
    vectors = torch.cat(features).numpy() if features else np.zeros((0, 0), dtype=np.float32)
    ids = manifest.table["image_id"].astype(str).tolist()
    return ManifestPredictions(
        table=predictions_table(rows, values[order], card.taxonomy),
        features=vectors[order],
        failures=tuple(
            Outcome(ids[one.item.place], None, one.error)
            for one in sorted(failed, key=lambda one: one.item.place)
        ),
    )


def _refuse_other_labels(card: ModelCard, manifest: Manifest) -> None:
    answers, asked = card.taxonomy.label_ids, manifest.taxonomy.label_ids
    if answers != asked:
        raise TaxonomyError(
            f"the manifest has the labels {', '.join(asked)}, but the model answers "
            f"{', '.join(answers)}; give the manifest the taxonomy.toml of the run, and its labels",
            where=manifest.place,
        )


def _read(item: _Item, *, input_size: int) -> Tensor:
    return read_crop(item.path, input_size)


def _batches(
    outcomes: Iterable[Outcome[_Item, Tensor]],
    batch_size: int,
    failed: list[Outcome[_Item, Tensor]],
) -> Iterator[list[tuple[int, Tensor]]]:
    """Group what was read; put what was not into `failed`."""
    batch: list[tuple[int, Tensor]] = []
    for outcome in outcomes:
        if outcome.value is None:
            failed.append(outcome)
            continue
        batch.append((outcome.item.place, outcome.value))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _forward(model: nn.Module, card: ModelCard, pixels: list[Tensor]) -> Tensor:
    images = torch.stack(pixels).to(_device(), memory_format=torch.channels_last).float() / 255.0
    mean, std = (images.new_tensor(v)[:, None, None] for v in (card.mean, card.std))
    with torch.inference_mode():
        found: Tensor = model((images - mean) / std)
    return found.float().cpu()


def _none(card: ModelCard) -> FloatArray:
    return np.zeros((0, len(card.labels)))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
