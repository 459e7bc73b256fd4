"""The network of a training, completed by what its initial weights need."""

import statistics
from pathlib import Path

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ConfigError
from glomerulab.images import image_size
from glomerulab.models.card import Origin, Triple
from glomerulab.models.checkpoint import read_checkpoint
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import ModelEntry, find_model
from glomerulab.models.transfer.published import PublishedModel, find_published, is_published
from glomerulab.models.transfer.weights import (
    has_local_weights,
    imagenet_origin,
    imagenet_scale,
)
from glomerulab.training.config import IMAGENET, LOCAL_IMAGENET, TrainConfig

__all__ = ["complete_network"]

STEP = 32
"""Total stride of the usual networks, px; folds of one cohort should agree on a size."""
N_MEASURED = 200
"""Images whose size is read, about."""
IMAGENET_SCALE = (IMAGENET_MEAN, IMAGENET_STD)


def complete_network(config: TrainConfig, training: Manifest) -> tuple[TrainConfig, Origin | None]:
    """Return the configuration with the network, its options, its size and scale given in full.

    A published network becomes the network of timm that it is built by, and its weights the initial
    ones. Mean and standard deviation that are not set become those that the weights expect.

    Parameters
    ----------
    training : Manifest
        The images of the training part, whose size ``model.max_input_size`` refers to.

    Returns
    -------
    config : TrainConfig
    origin : Origin or None
        Of published initial weights.

    Raises
    ------
    CheckpointError
        If a published network or the run to start from cannot be read.
    ConfigError
        If the network is unknown.
    ImageFileError
        If the size of an image cannot be read.
    """
    model, start = config.model, config.start
    published = None
    if is_published(model.name):
        published = find_published(model.name)
        if start.weights in {None, LOCAL_IMAGENET}:
            start = start.model_copy(update={"weights": model.name})
        model = model.model_copy(
            update={
                "name": published.model,
                "options": published.options | model.options,
                "input_size": model.input_size or published.input_size,
            }
        )
    else:
        entry = _known(model.name)
        if model.input_size is None and model.max_input_size is not None:
            size = _usual_size(training, entry, largest=model.max_input_size)
            model = model.model_copy(update={"input_size": size})
    (mean, std), origin = _expected(start.weights, model.name, published)
    model = model.model_copy(update={"mean": model.mean or mean, "std": model.std or std})
    return config.model_copy(update={"model": model, "start": start}), origin


def _known(name: str) -> ModelEntry:
    try:
        return find_model(name)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def _usual_size(training: Manifest, entry: ModelEntry, *, largest: int) -> int:
    """Return the input size at which the usual training image is hardly shrunk or enlarged."""
    paths = training.image_paths()
    if entry.has_fixed_size or not paths:
        return entry.input_size
    sides = [max(image_size(path)) for path in paths[:: 1 + len(paths) // N_MEASURED]]
    usual = STEP * round(statistics.median(sides) / STEP)
    return max(entry.input_size, min(usual, largest))


def _expected(
    weights: str | None, name: str, published: PublishedModel | None
) -> tuple[tuple[Triple, Triple], Origin | None]:
    """Return the scale of the images that the initial weights expect, and the weights' origin."""
    if weights is None or (weights == LOCAL_IMAGENET and not has_local_weights(name)):
        return IMAGENET_SCALE, None
    if weights in {IMAGENET, LOCAL_IMAGENET}:
        return imagenet_scale(name), imagenet_origin(name)
    if is_published(weights):
        published = find_published(weights)
        return (published.mean, published.std), published.origin
    if (Path(weights) / "checkpoint").is_dir():
        _, card = read_checkpoint(Path(weights))
        return (card.mean, card.std), card.origin
    if published is not None:  # a file, such as the same network trained further
        return (published.mean, published.std), published.origin
    return IMAGENET_SCALE, None
