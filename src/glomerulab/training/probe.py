"""Training of a probe: features of the frozen network, and a linear classifier on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.splits import group_rows
from glomerulab.errors import TrainingError
from glomerulab.models.card import ModelCard
from glomerulab.models.layers import find_stages, layers_in_forward_order
from glomerulab.models.networks.probe import FeatureExtractor, Probe
from glomerulab.models.registry import PROBE, find_model
from glomerulab.predictions import Head
from glomerulab.runtime.progress import Track
from glomerulab.training.config import TrainConfig
from glomerulab.training.features import embed, extractor_fingerprint
from glomerulab.training.linear import LinearFit, fit_linear
from glomerulab.training.start import Start

__all__ = ["FittedProbe", "fit_probe", "n_pretrained_stages"]


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe, what identifies it, and its logits of all images."""

    network: Probe
    card: ModelCard
    logits: Tensor
    """float32, shape (n_images, K)."""
    strengths: tuple[float, ...]
    """See `LinearFit`."""


def fit_probe(
    backbone: nn.Module,
    card: ModelCard,
    start: Start,
    manifest: Manifest,
    config: TrainConfig,
    *,
    folder: Path | None,
    track: Track,
) -> FittedProbe:
    """Compute the features of all images, and fit the classifier on those of the training part.

    Parameters
    ----------
    backbone : Module
        With its initial weights.
    card : ModelCard
        Of the backbone.
    start : Start
        Tells which of the weights are pretrained.
    manifest : Manifest
        With `split` filled.
    folder : Path, optional
        Keeps the features for other trainings.

    Raises
    ------
    TrainingError
        If a class is missing, or the regularisation cannot be chosen by patient.
    """
    is_training = (manifest.table["split"] == "train").to_numpy(dtype=bool)
    labels = manifest.labels()[is_training]
    _check_classes(labels, manifest, head=card.head)
    n_stages = n_pretrained_stages(backbone, start.pretrained, input_size=card.input_size)
    extractor = FeatureExtractor(backbone, n_stages=n_stages, n_views=config.probe.n_views).eval()
    if folder is not None:
        folder /= extractor_fingerprint(extractor, card, n_stages=n_stages)
    features = embed(
        manifest, extractor, card, folder=folder, n_workers=config.n_workers, track=track
    )
    has_patients = manifest.table["patient_id"].notna().all()
    patients = group_rows(manifest, "patient" if has_patients else "image")
    fit = fit_linear(
        features[is_training],
        labels,
        patients[is_training],
        head=card.head,
        strengths=config.probe.strengths,
        n_inner_folds=config.probe.n_inner_folds,
        is_balanced=config.balance != "none",
        seed=config.seed,
    )
    network = _network(extractor, fit)
    with torch.inference_mode():
        logits = network.head(torch.from_numpy(features))
    options = dict(card.options)
    entry = find_model(card.model)
    if entry.has_fixed_size and card.input_size != entry.input_size:
        options.setdefault("img_size", card.input_size)
    options |= {"backbone": card.model, "n_features": features.shape[1]}
    options |= {"n_stages": n_stages, "n_views": config.probe.n_views}
    return FittedProbe(
        network, card.model_copy(update={"model": PROBE, "options": options}), logits, fit.strengths
    )


def _check_classes(labels: npt.NDArray[np.float64], manifest: Manifest, *, head: Head) -> None:
    """Check, before any feature is computed, that there are two outcomes to tell apart."""
    is_single = (labels == 1).sum(axis=1) == 1
    for label_id, column in zip(manifest.taxonomy.label_ids, labels.T, strict=True):
        if head == "softmax" and not (is_single & (column == 1)).any():
            raise TrainingError(
                f"no training image shows {label_id} alone, so the classes cannot be told apart; "
                "add such images, remove the label from the taxonomy, or set model.head = "
                "'sigmoid'",
                where=manifest.location,
            )
        if head == "sigmoid" and not {0.0, 1.0} <= set(column[~np.isnan(column)]):
            raise TrainingError(
                f"{label_id} has the same value in all training images, so there is nothing to "
                "learn; add images with and without it, or remove the label from the taxonomy",
                where=manifest.location,
            )


def n_pretrained_stages(model: nn.Module, pretrained: tuple[str, ...], *, input_size: int) -> int:
    """Return how many stages precede the first layer with random weights; 0 where all do.

    The classifier may be random. Without pretrained weights all stages are equally random, so all
    are taken.
    """
    stages = find_stages(model)
    if not pretrained or not stages:
        return 0
    names = {layer: name for name, layer in model.named_modules()}
    order = layers_in_forward_order(model, input_size=input_size)
    known = {name.rpartition(".")[0] for name in pretrained}
    first_random = next(
        (place for place, name in enumerate(order) if name not in known), len(order)
    )
    n_complete = 0
    for stage in stages:
        prefix = names[stage.layer]
        own = [place for place, one in enumerate(order) if f"{one}.".startswith(f"{prefix}.")]
        if own and max(own) > first_random:
            break
        n_complete += 1
    return 0 if n_complete == len(stages) else n_complete


def _network(extractor: FeatureExtractor, fit: LinearFit) -> Probe:
    n_classes, n_features = fit.weights.shape
    network = Probe(extractor, n_features, n_classes)
    with torch.no_grad():
        for tensor, values in (
            (network.offset, fit.offset),
            (network.scale, fit.scale),
            (network.linear.weight, fit.weights),
            (network.linear.bias, fit.bias),
        ):
            tensor.copy_(torch.from_numpy(np.asarray(values)))
    return network.eval()
