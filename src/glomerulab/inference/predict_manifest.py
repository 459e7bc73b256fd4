"""What a trained model says of every image of a manifest, as a predictions table.

`evaluate` judges what this gives. Images are shown as `predict` shows them; what it leaves to
others are calibration, gates and calls. It knows nothing of slides or training.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import TaxonomyError
from glomerulab.inference.engines.base import probabilities_of
from glomerulab.inference.engines.torch_engine import TorchEngine
from glomerulab.inference.image_predictions import ImageToAnswer, Shown, read_batches, to_answer
from glomerulab.models.card import ModelCard
from glomerulab.models.feature_layers import features_seen
from glomerulab.predictions import predictions_table
from glomerulab.runtime.parallel import Outcome
from glomerulab.runtime.progress import Track, silent

__all__ = ["ManifestPredictions", "predict_manifest"]


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
    engine = TorchEngine(checkpoint)
    card = engine.card
    _refuse_other_labels(card, manifest)
    failed: list[Outcome[ImageToAnswer, Shown]] = []
    places: list[int] = []
    logits = [np.zeros((0, len(card.labels)), dtype=np.float32)]
    with features_seen(engine.network.model) as vectors:
        for batch in read_batches(
            to_answer(manifest),
            card,
            failed,
            batch_size=batch_size,
            n_workers=n_workers,
            track=track,
        ):
            places += [item.place for item, _ in batch]
            logits.append(engine.answer(np.stack([shown.pixels for _, shown in batch])).logits)
    if not places and failed:
        raise failed[0].error or AssertionError  # an outcome without value has its error
    values = probabilities_of(np.concatenate(logits), card.head)
    return ManifestPredictions(
        table=predictions_table(manifest.table.iloc[places], values, card.taxonomy),
        features=np.concatenate([one.numpy() for one in vectors]) if vectors else _no_vectors(),
        failures=tuple(Outcome(one.item.image_id, None, one.error) for one in failed),
    )


def _refuse_other_labels(card: ModelCard, manifest: Manifest) -> None:
    answers, asked = card.taxonomy.label_ids, manifest.taxonomy.label_ids
    if answers != asked:
        raise TaxonomyError(
            f"the manifest has the labels {', '.join(asked)}, but the model answers "
            f"{', '.join(answers)}; give the manifest the taxonomy.toml of the run, and its labels",
            where=manifest.location,
        )


def _no_vectors() -> npt.NDArray[np.float32]:
    return np.zeros((0, 0), dtype=np.float32)
