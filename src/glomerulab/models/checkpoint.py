"""Checkpoints: the weights of a model as safetensors, its card as JSON.

Reading one never executes code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.card import CHECKPOINT, ModelCard, read_card, read_model_card, weights_file
from glomerulab.models.registry import create_model
from glomerulab.runtime.sealing import SealedFolder, read_bundle, write_bundle

__all__ = [
    "ModelCard",
    "load_checkpoint",
    "read_checkpoint",
    "read_tensors",
    "read_weights",
    "save_checkpoint",
    "write_tensors",
]


def save_checkpoint(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a checkpoint atomically; `weights` is the ``state_dict()`` of the model."""
    write_tensors(folder, CHECKPOINT, weights, card.model_dump(mode="json"))


def read_checkpoint(folder: Path | SealedFolder) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the weights and the card of a checkpoint without building its model.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Raises
    ------
    CheckpointError
        If a file is missing, altered or malformed, or the folder holds a cross-validation.
    RunError
        If a file is not the one that was sealed.
    """
    files = SealedFolder.of(folder)
    content, card, path = read_model_card(files)
    return _tensors(content, path), card


def load_checkpoint(folder: Path | SealedFolder) -> tuple[nn.Module, ModelCard]:
    """Read a checkpoint and build its model, in evaluation mode and on the CPU.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Raises
    ------
    CheckpointError
        If a file is missing, altered, or of another model.
    RunError
        If a file is not the one that was sealed.
    """
    files = SealedFolder.of(folder)
    weights, card = read_checkpoint(files)
    try:
        model = create_model(
            card.model, len(card.labels), options=card.options, input_size=card.input_size
        )
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights do not fit the model {card.model}: {first_line}",
            where=str(files.folder),
        ) from error
    return model.eval(), card


def read_weights(files: SealedFolder) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read the weights of a run or its ``checkpoint`` folder, the checked facts, and their file."""
    content, facts, where = read_card(files)
    return _tensors(content, weights_file(facts, where)), facts, where


def write_tensors(
    folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]
) -> None:
    """Write tensors and facts as one bundle; see `glomerulab.runtime.sealing`."""
    # Tensors that share memory or are not contiguous are refused by safetensors: copy.
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    write_bundle(folder, name, content, facts)


def read_tensors(
    folder: Path | SealedFolder, name: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the facts of a bundle; `name` as for `read_bundle`.

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the tensors are not those the facts were written for.
    """
    files = SealedFolder.of(folder)
    content, facts = read_bundle(files, name)
    return _tensors(content, weights_file(facts, str(files.folder / f"{name}.json"))), facts


def _tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        return load(content)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path.name} is not a safetensors file: {error}", where=str(path)
        ) from error
