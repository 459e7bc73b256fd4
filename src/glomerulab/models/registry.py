"""The registry of networks.

To add a network, add a module to ``networks`` and an entry to `MODELS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from glomerulab.models.networks.improved_seresnet import (
    improved_seresnet50,
    improved_seresnet_small,
)
from glomerulab.models.networks.probe import FeatureExtractor, Probe

__all__ = [
    "HUB_PREFIX",
    "LOCAL_PREFIX",
    "MODELS",
    "PROBE",
    "TIMM_PREFIX",
    "ModelEntry",
    "create_model",
    "find_model",
]

TIMM_PREFIX = "timm:"
HUB_PREFIX, LOCAL_PREFIX = "hf-hub:", "local-dir:"
"""Of networks that others published, see `glomerulab.models.transfer.published`."""
PROBE = "probe"
"""Name of a linear layer on a frozen network, which `kind = "probe"` of a training makes."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """How to build a network, and its default input size."""

    build: Callable[..., nn.Module]
    """Takes the number of classes, ``dropout`` and the options of this network."""
    input_size: int = 224
    """Height and width of an input image, px."""
    imagenet: str = ""
    """Name in timm of the ImageNet weights for it; empty if there are none."""
    has_fixed_size: bool = False
    """Whether another input size must be given when the network is built (transformers)."""


def _timm_model(name: str, n_classes: int, *, dropout: float = 0.0, **options: object) -> nn.Module:
    import timm

    arguments: dict[str, Any] = {key: _layer_class(key, value) for key, value in options.items()}
    # VGG16 keeps its 4,096-channel head at any input size; the others pool.
    model: nn.Module = timm.create_model(
        name, pretrained=False, num_classes=n_classes, drop_rate=dropout, **arguments
    )
    return model


def _layer_class(key: str, value: object) -> object:
    """Return the class that an option such as ``mlp_layer = "SwiGLUPacked"`` names."""
    import timm.layers

    if not (key.endswith("_layer") and isinstance(value, str)):
        return value
    name = value.rpartition(".")[2]
    found = (getattr(package, name, None) for package in (timm.layers, nn))
    return next((one for one in found if isinstance(one, (type, partial))), value)


def _timm_entry(name: str, input_size: int = 224, *, has_fixed_size: bool = False) -> ModelEntry:
    return ModelEntry(partial(_timm_model, name), input_size, name, has_fixed_size)


def _probe(
    n_classes: int,
    *,
    backbone: str = "",
    n_features: int = 0,
    n_stages: int = 0,
    n_views: int = 1,
    dropout: float = 0.0,
    **options: object,
) -> nn.Module:
    del dropout
    if not backbone:
        raise ValueError(
            "a probe is made by kind = 'probe' in the configuration of a training; set model.name "
            "to the network that it freezes"
        )
    network = create_model(backbone, n_classes, options=options)
    return Probe(
        FeatureExtractor(network, n_stages=n_stages, n_views=n_views), n_features, n_classes
    )


MODELS: Mapping[str, ModelEntry] = {
    "improved_seresnet50": ModelEntry(improved_seresnet50, imagenet="resnet34"),
    "improved_seresnet_small": ModelEntry(improved_seresnet_small, 128),
    "vgg16": _timm_entry("vgg16"),
    "inception_v3": _timm_entry("inception_v3", 299),
    "resnet50": _timm_entry("resnet50"),
    "seresnet50": _timm_entry("seresnet50"),
    "mobilenetv3_small": _timm_entry("mobilenetv3_small_100"),
    "efficientnet_b0": _timm_entry("efficientnet_b0"),
    "lite0": _timm_entry("tf_efficientnet_lite0"),
    "lite1": _timm_entry("tf_efficientnet_lite1", 240),
    "lite2": _timm_entry("tf_efficientnet_lite2", 260),
}
"""Networks by name; in addition, ``timm:<name>`` builds any network of timm."""


def find_model(name: str) -> ModelEntry:
    """Return the entry of a network.

    Parameters
    ----------
    name : str
        A key of `MODELS`, or ``timm:`` and the name of a network of timm.

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the known ones.
    """
    if name in MODELS:
        return MODELS[name]
    if name == PROBE:
        return ModelEntry(_probe)
    if name.startswith(TIMM_PREFIX):
        import timm

        timm_name = name.removeprefix(TIMM_PREFIX)
        if timm.is_model(timm_name):
            config = timm.get_pretrained_cfg(timm_name)
            if config is None:
                return _timm_entry(timm_name)
            size = int(config.input_size[-1])
            return _timm_entry(timm_name, size, has_fixed_size=bool(config.fixed_input_size))
    known = ", ".join(MODELS)
    raise ValueError(f"unknown model {name!r}; known are {known}, and timm:<name>")


def create_model(
    name: str,
    n_classes: int,
    *,
    seed: int = 0,
    dropout: float = 0.0,
    options: Mapping[str, object] | None = None,
    input_size: int | None = None,
) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    name : str
        See `find_model`.
    n_classes : int
        Number of logits, at least 1.
    seed : int, default 0
        Determines the weights; the global generator of torch is not changed.
    dropout : float, default 0.0
        At least 0, less than 1.
    options : mapping of str to object, optional
        Options of this network, such as ``{"reading": "cited"}``; for a network of timm, the
        arguments of its constructor, in which a string may name a layer.
    input_size : int, optional
        Height and width of an input image, px, for networks that are built for one size; by default
        the design size.

    Returns
    -------
    Module
        Takes float tensors (B, 3, H, W), gives logits (B, n_classes).

    Raises
    ------
    ValueError
        If the name, an option or a value is invalid.
    """
    entry = find_model(name)
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1, got {n_classes}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    given = dict(options or {})
    if entry.has_fixed_size and input_size not in {None, entry.input_size}:
        given.setdefault("img_size", input_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return entry.build(n_classes, dropout=dropout, **given)
        except (TypeError, AssertionError, RuntimeError) as error:
            raise ValueError(f"model {name!r} does not take these options: {error}") from error
