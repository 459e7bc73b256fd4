"""The initial weights of a segmenter: random, an encoder's, or those of another segmenter."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.card import Origin, SegmenterCard, Triple
from glomerulab.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from glomerulab.models.registry import TIMM_PREFIX, create_model
from glomerulab.models.segmentation import load_segmenter
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import (
    has_local_weights,
    imagenet_origin,
    imagenet_scale,
    imagenet_weights,
)
from glomerulab.training.config import IMAGENET, LOCAL_IMAGENET
from glomerulab.training.segmentation.config import SegmenterConfig

__all__ = ["check_start", "input_scale", "load_start"]

ENCODER = "encoder.model."
HEAD = "segmentation_head."
CHECKPOINTS = "checkpoint/checkpoint.json", "checkpoint.json"


def check_start(config: SegmenterConfig) -> None:
    """Check that the initial weights are on this machine; images take longer to read.

    Raises
    ------
    CheckpointError
        If there are no such weights.
    ConfigError
        As `input_scale`.
    """
    wanted = config.start.weights
    if wanted not in {None, IMAGENET, LOCAL_IMAGENET} and not Path(wanted).exists():
        raise CheckpointError(
            "there are no such weights; set start.weights to imagenet, auto, a file, or the run "
            "folder of a segmenter, or leave it out to start from random ones",
            where=wanted,
        )
    if (
        wanted is not None
        and Path(wanted).is_dir()
        and not any((Path(wanted) / name).is_file() for name in CHECKPOINTS)
    ):
        raise CheckpointError(
            "the folder holds no network that can be trained further (one in ONNX cannot); start "
            "from imagenet, a file, or the run folder of `glomerulab train-segmenter`",
            where=wanted,
        )
    input_scale(config)
    if _takes_imagenet(config):
        imagenet_weights(TIMM_PREFIX + config.encoder)


def input_scale(config: SegmenterConfig) -> tuple[Triple, Triple, Origin | None]:
    """Return mean and standard deviation that the initial weights expect, and their origin.

    Raises
    ------
    CheckpointError
        If there are no such weights.
    ConfigError
        If the configuration states another scale than the weights expect.
    """
    wanted, name = config.start.weights, TIMM_PREFIX + config.encoder
    mean, std, origin = IMAGENET_MEAN, IMAGENET_STD, None
    try:
        if _takes_imagenet(config):
            (mean, std), origin = imagenet_scale(name), imagenet_origin(name)
        elif wanted is not None and Path(wanted).is_dir():
            _, card = load_segmenter(Path(wanted))
            mean, std, origin = card.mean, card.std, card.origin
    except ValueError as error:
        raise ConfigError(f"encoder: {error}") from error
    own = config.mean or mean, config.std or std
    if own != (mean, std) and wanted not in {None, LOCAL_IMAGENET} and not _is_file(wanted):
        raise ConfigError(
            f"the initial weights expect images normalised with mean {list(mean)} and std "
            f"{list(std)}; leave mean and std out"
        )
    return *own, origin


def load_start(network: nn.Module, config: SegmenterConfig, card: SegmenterCard) -> str:
    """Load the initial weights, and return a line for the user on what was loaded.

    Raises
    ------
    CheckpointError
        If the weights are missing, damaged, or of another network.
    """
    wanted = config.start.weights
    if wanted is None:
        return "start: random"
    if _takes_imagenet(config):
        path = imagenet_weights(TIMM_PREFIX + config.encoder)
        return _load_encoder(network, config.encoder, path)
    if wanted == LOCAL_IMAGENET:
        return f"start: random, since this machine has no ImageNet weights for {config.encoder}"
    path = Path(wanted)
    return (
        _load_segmenter(network, card, path)
        if path.is_dir()
        else _load_encoder(network, config.encoder, path)
    )


def _takes_imagenet(config: SegmenterConfig) -> bool:
    wanted = config.start.weights
    return wanted == IMAGENET or (
        wanted == LOCAL_IMAGENET and has_local_weights(TIMM_PREFIX + config.encoder)
    )


def _is_file(wanted: str | None) -> bool:
    return wanted is not None and Path(wanted).is_file()


def _load_encoder(network: nn.Module, name: str, path: Path) -> str:
    """Load the weights of a classifier of timm into the encoder, whose names may have underscores.

    The encoder leaves out the head, and may join the names of layers: ``stages.0`` is ``stages_0``.
    """
    found = read_weights(path, create_model(TIMM_PREFIX + name, 1)).tensors
    by_key = {key.replace(".", "_"): value for key, value in found.items()}
    own = {key: value for key, value in network.state_dict().items() if key.startswith(ENCODER)}
    chosen = {
        key: by_key[short]
        for key, value in own.items()
        if (short := key.removeprefix(ENCODER).replace(".", "_")) in by_key
        and by_key[short].shape == value.shape
    }
    missing = [key for key in own if key not in chosen and not key.endswith("batches_tracked")]
    if missing:
        raise CheckpointError(
            f"the weights are of another network than the encoder {name}: {len(missing)} of its "
            f"{len(own)} tensors are not among them, the first is "
            f"{missing[0].removeprefix(ENCODER)}",
            where=str(path),
        )
    _copy(network, chosen)
    return f"start: {path}, {len(chosen)} tensors of the encoder; the decoder is random"


def _load_segmenter(network: nn.Module, card: SegmenterCard, run: Path) -> str:
    """Load another segmenter; its head keeps the channels of structures that both have."""
    other, its_card = load_segmenter(run)
    mine, theirs = ((one.architecture, one.encoder) for one in (card, its_card))
    if mine != theirs:
        raise ConfigError(
            f"the run has the network {' '.join(theirs)}, and the new one {' '.join(mine)}; set "
            "architecture and encoder to the run's",
            where=str(run),
        )
    weights = other.state_dict()
    channels = _channel_names(card)
    of_theirs = {name: number for number, name in enumerate(_channel_names(its_card))}
    kept = [(number, of_theirs[name]) for number, name in enumerate(channels) if name in of_theirs]
    chosen = {key: value for key, value in weights.items() if not key.startswith(HEAD)}
    for key, value in network.state_dict().items():
        if key.startswith(HEAD):
            filled = value.clone()
            for number, theirs_number in kept:
                filled[number] = weights[key][theirs_number]
            chosen[key] = filled
    _copy(network, chosen)
    return f"start: {run}, with its channels of {len(kept)} of {len(channels)} structures and cores"


def _channel_names(card: SegmenterCard) -> list[str]:
    return [*card.structures, *(f"core of {one}" for one in card.cores)]


def _copy(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)
