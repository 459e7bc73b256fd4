"""Checkpoints: the weights of a model as safetensors, its card as JSON.

Reading one never executes code.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.card import ModelCard
from glomerulab.models.registry import create_model
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import is_crossval, read_bundle, write_bundle

__all__ = [
    "ModelCard",
    "load_checkpoint",
    "read_checkpoint",
    "read_tensors",
    "save_checkpoint",
    "write_tensors",
]

NAME = "checkpoint"


def save_checkpoint(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a checkpoint atomically; `weights` is the ``state_dict()`` of the model."""
    write_tensors(folder, NAME, weights, card.model_dump(mode="json"))


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the weights and the card of a checkpoint without building its model.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Raises
    ------
    CheckpointError
        If a file is missing, altered or malformed, or the folder holds a cross-validation.
    """
    if is_crossval(folder):
        raise CheckpointError(
            "a cross-validation has a model of each fold, and one model is needed here; give the "
            "folder of one, such as runs/repeat-1-fold-0 in it, or train on all images",
            where=str(folder),
        )
    if (folder / NAME / f"{NAME}.json").is_file():
        folder /= NAME
    weights, facts = read_tensors(folder, NAME)
    known = {key: value for key, value in facts.items() if not key.startswith("tensors_")}
    try:
        return weights, ModelCard.model_validate(known)
    except ValidationError as error:
        where = str(folder / f"{NAME}.json")
        raise CheckpointError(first_problem(error), where=where) from error


def load_checkpoint(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Read a checkpoint and build its model, in evaluation mode and on the CPU.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Raises
    ------
    CheckpointError
        If a file is missing, altered, or of another model.
    """
    weights, card = read_checkpoint(folder)
    try:
        model = create_model(
            card.model, len(card.labels), options=card.options, input_size=card.input_size
        )
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"the weights do not fit the model {card.model}: {first_line}", where=str(folder)
        ) from error
    return model.eval(), card


def write_tensors(
    folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, object]
) -> None:
    """Write tensors and facts as one bundle; see `glomerulab.runtime.sealing`."""
    # Tensors that share memory or are not contiguous are refused by safetensors: copy.
    content = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    write_bundle(folder, name, content, facts)


def read_tensors(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Read the tensors (on the CPU) and the facts of a bundle.

    Raises
    ------
    CheckpointError
        If a file is missing or unreadable, or the tensors are not those the facts were written for.
    """
    content, facts = read_bundle(folder, name)
    try:
        return load(content), facts
    except SafetensorError as error:
        file_name = str(facts["tensors_file"])
        raise CheckpointError(
            f"{file_name} is not a safetensors file: {error}", where=str(folder / file_name)
        ) from error
