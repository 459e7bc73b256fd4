"""Networks that outline structures: one sigmoid channel per structure, one per core of objects."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.card import CHECKPOINT, SegmenterCard
from glomerulab.models.checkpoint import read_weights, write_tensors
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import SealedFolder

__all__ = ["create_segmenter", "load_segmenter", "save_segmenter", "sees_whole_tile"]

PREFIX = "tu-"
"""Of the encoders of timm in segmentation-models-pytorch."""
DECODERS: Mapping[str, Mapping[str, Any]] = {
    "unet": {"decoder_channels": (128, 64, 32, 24, 16)},
    "fpn": {"decoder_pyramid_channels": 128, "decoder_segmentation_channels": 64},
}
"""By architecture; half as wide as usual, since the encoders are small."""
WHOLE_IMAGE_LAYERS = frozenset(
    {"SqueezeExcite", "SqueezeExcitation", "SEModule", "EffectiveSEModule", "GlobalContext"}
    | {"GlobalResponseNorm", "GlobalResponseNormMlp", "EcaModule", "CecaModule", "Attention"}
)
"""Classes of timm."""
NOT_THIS_KIND = (
    "the model is a classifier of crops, and a segmenter is needed here; give a folder that "
    "`glomerulab train-segmenter` wrote"
)


def create_segmenter(card: SegmenterCard, *, seed: int = 0) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    card : SegmenterCard
        Its architecture, encoder and channels.
    seed : int, default 0
        Determines the weights; the global generator of torch is not changed.

    Returns
    -------
    Module
        Takes float tensors (B, 3, H, W), H and W multiples of 32, gives logits
        (B, ``card.n_channels``, H, W).

    Raises
    ------
    ConfigError
        If the architecture or the encoder is unknown, or the encoder has no maps for outlines.
    """
    import segmentation_models_pytorch as smp
    import timm

    builders: dict[str, Callable[..., nn.Module]] = {"unet": smp.Unet, "fpn": smp.FPN}
    if card.architecture not in builders:
        known = " and ".join(builders)
        raise ConfigError(f"unknown architecture {card.architecture!r}; known are {known}")
    if not timm.is_model(card.encoder):
        raise ConfigError(f"timm has no network {card.encoder!r}; give a name of timm as encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return builders[card.architecture](
                PREFIX + card.encoder,
                encoder_weights=None,
                classes=card.n_channels,
                **DECODERS[card.architecture],
            )
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"the network {card.encoder} cannot be the encoder of a segmenter ({reason}); "
                "choose another, such as tf_efficientnet_lite2"
            ) from error


def sees_whole_tile(network: nn.Module) -> bool:
    """Return whether layers average over the whole image, so that its size changes the result."""
    kinds = {type(layer) for layer in network.modules()}
    return any(
        kind.__name__ in WHOLE_IMAGE_LAYERS and kind.__module__.startswith("timm") for kind in kinds
    )


def save_segmenter(folder: Path, weights: Mapping[str, Tensor], card: SegmenterCard) -> None:
    """Write a checkpoint atomically; `weights` is the ``state_dict()`` of the network."""
    facts = card.model_dump(mode="json", exclude={"weights_sha256"})
    write_tensors(folder, CHECKPOINT, weights, facts)


def load_segmenter(folder: Path | SealedFolder) -> tuple[nn.Module, SegmenterCard]:
    """Read a checkpoint and build its network, in evaluation mode and on the CPU.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Raises
    ------
    CheckpointError
        If a file is missing, altered, or of a model of another kind.
    RunError
        If a file is not the one that was sealed.
    """
    files = SealedFolder.of(folder)
    weights, facts, where = read_weights(files)
    if facts.get("kind") != "segmenter":
        raise CheckpointError(NOT_THIS_KIND, where=where)
    known = {key: value for key, value in facts.items() if not key.startswith("tensors_")}
    try:
        card = SegmenterCard.model_validate(
            known | {"weights_sha256": str(facts["tensors_sha256"])}
        )
        model = create_segmenter(card)
        model.load_state_dict(weights)
    except ValidationError as error:
        raise CheckpointError(first_problem(error), where=where) from error
    except (ConfigError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights do not fit the segmenter: {first_line}", where=where
        ) from error
    return model.eval(), card
