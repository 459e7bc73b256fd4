"""A trained model in a folder: weights as safetensors, all else as JSON; nothing that executes.

The format lives here, below training and inference, so that neither needs the other.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.card import ModelCard
from glomerulab.models.registry import create_model
from glomerulab.models.tensor_files import read_sealed, write_sealed

__all__ = ["ModelCard", "load_checkpoint", "read_checkpoint", "save_checkpoint"]

NAME = "checkpoint"


def save_checkpoint(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a checkpoint; a reader sees the older one or this one, never a mixture.

    Parameters
    ----------
    folder : Path
        Made if needed.
    weights : mapping of str to Tensor
        The model's ``state_dict()``.
    card : ModelCard
    """
    write_sealed(folder, NAME, weights, card.model_dump(mode="json"))


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the weights and the card of a checkpoint without building its model.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Returns
    -------
    weights : dict of str to Tensor
    card : ModelCard

    Raises
    ------
    CheckpointError
        If a file is missing, altered, or no card.
    """
    if (folder / NAME / f"{NAME}.json").is_file():
        folder /= NAME
    weights, facts = read_sealed(folder, NAME)
    known = {key: value for key, value in facts.items() if not key.startswith("tensors_")}
    try:
        return weights, ModelCard.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        where = str(folder / f"{NAME}.json")
        raise CheckpointError(f"{key}: {first['msg']}", where=where) from error


def load_checkpoint(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Read a checkpoint and build its model, in evaluation mode and on the CPU.

    Parameters
    ----------
    folder : Path
        The ``checkpoint`` folder, or the run folder that holds it.

    Returns
    -------
    model : Module
    card : ModelCard

    Raises
    ------
    CheckpointError
        If a file is missing, altered, or of another model.
    """
    weights, card = read_checkpoint(folder)
    try:
        model = create_model(card.model, len(card.labels), options=card.options)
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"weights and model do not fit: {first_line}", where=str(folder)
        ) from error
    return model.eval(), card
