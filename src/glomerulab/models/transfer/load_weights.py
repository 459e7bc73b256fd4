"""Weights from a file into a network: what fits goes in, and what did not is said by name.

Files are safetensors, or what ``torch.save`` wrote, read without executing anything. It must not
know where they come from, nor what a run is.
"""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.transfer.forward_order import weights_in_forward_order

__all__ = ["Loaded", "head_of", "load_fitting", "read_weights"]

Weights = Mapping[str, Tensor]

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which training programs keep the weights of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What of a file went into a network; names as in ``model.state_dict()``."""

    loaded: tuple[str, ...]
    """Weights and batch norm values that were taken."""
    missing: tuple[str, ...] = ()
    """The network has them, the file does not: left as they were."""
    misshapen: tuple[str, ...] = ()
    """In both, with different shapes: left as they were."""
    unused: tuple[str, ...] = ()
    """Only in the file."""
    reset: tuple[str, ...] = ()
    """Batch norms left as they were, since the file's values are of weights it lacks."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a file.

    Parameters
    ----------
    path : Path
        ``.safetensors``, or a file of ``torch.save`` under any other suffix: a dict of tensors,
        perhaps inside a dict under ``state_dict`` or ``model``.

    Returns
    -------
    dict of str to Tensor
        On the CPU. The prefix ``module.``, which wrappers for several GPUs leave, is taken off.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, holds no tensors, or would execute code.
    """
    where = str(path)
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror or error}", where=where) from error
    except pickle.UnpicklingError as error:
        reason = (
            "holds more than tensors, and reading that could execute code; save its state_dict() "
            "as .safetensors where it comes from"
        )
        is_of_torch = zipfile.is_zipfile(path)
        raise CheckpointError(
            reason if is_of_torch else "no file of weights", where=where
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"no file of weights: {first_line}", where=where) from error
    return _tensors(content, where=where)


def load_fitting(
    model: nn.Module, weights: Weights, *, input_size: int, leave: tuple[str, ...] = ()
) -> Loaded:
    """Put into a network every tensor of a file whose name and shape are the network's.

    Parameters
    ----------
    model : Module
        Changed in place.
    weights : mapping of str to Tensor
    input_size : int
        Height and width of an image it takes, px.
    leave : tuple of str, default ()
        Layers that stay as they are, such as the head.

    Returns
    -------
    Loaded

    Notes
    -----
    What a batch norm has learned is of the maps that reach it. So batch norms behind the first
    missing weight, in the order in which an image passes, keep none of the file's values.
    """
    own = model.state_dict()
    order = weights_in_forward_order(model, input_size=input_size)
    norms = _batch_norm_values(model)
    left = {key for key in own if any(key.startswith(f"{layer}.") for layer in leave)}
    loaded, missing, misshapen, reset = [], [], [], []
    for key in order:
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
    return Loaded(tuple(loaded), tuple(missing), tuple(misshapen), unused, tuple(reset))


def head_of(model: nn.Module) -> tuple[str, ...]:
    """Name the layers that give the logits: those a start from other labels must not take.

    Parameters
    ----------
    model : Module
        Of the registry: of ours, or of timm.

    Returns
    -------
    tuple of str
    """
    classifier = getattr(model, "pretrained_cfg", {}).get("classifier", "classifier")
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _batch_norm_values(model: nn.Module) -> set[str]:
    kind = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base of all batch norms
    return {
        f"{name}.{key}"
        for name, layer in model.named_modules()
        if isinstance(layer, kind)
        for key in layer.state_dict()
    }


def _tensors(content: object, *, where: str) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {
        str(key).removeprefix("module."): value
        for key, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not found:
        raise CheckpointError("holds no named tensors", where=where)
    return found
