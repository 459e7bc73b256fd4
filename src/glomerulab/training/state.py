"""What a run needs to go on after it was killed: weights, optimiser and history, in one whole.

Safetensors and JSON, no pickle. It is written after every epoch.
"""

from pathlib import Path

import torch
from torch import Tensor

from glomerulab.errors import CheckpointError
from glomerulab.models.checkpoint import read_tensors, write_tensors
from glomerulab.training.loop import Progress

__all__ = ["has_state", "load_state", "save_state"]

NAME = "state"


def has_state(folder: Path) -> bool:
    """Return whether an epoch was completed and saved there."""
    return (folder / f"{NAME}.json").is_file()


def save_state(folder: Path, progress: Progress, weights: dict[str, Tensor]) -> None:
    """Save what stands after an epoch; a reader sees this or the one before, whole.

    Parameters
    ----------
    folder : Path
    progress : Progress
    weights : dict of str to Tensor
        The model's, unwrapped.
    """
    tensors = {f"model.{name}": value for name, value in weights.items()}
    moments = progress.optimizer.state_dict()["state"]
    for place, values in moments.items():
        for name, value in values.items():
            if value is not None:  # SGD without momentum has a name and nothing behind it
                tensors[f"optimizer.{place}.{name}"] = torch.as_tensor(value)
    write_tensors(folder, NAME, tensors, {"history": progress.history})


def load_state(folder: Path, progress: Progress) -> None:
    """Put model, optimiser and history back to where they were saved.

    Parameters
    ----------
    folder : Path
    progress : Progress
        Changed in place; its model is not wrapped.

    Raises
    ------
    CheckpointError
        If the files are altered, or of another model or optimiser.
    """
    tensors, facts = read_tensors(folder, NAME)
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        if kind == "model":
            weights[name] = value
        else:
            place, _, moment = name.partition(".")
            moments.setdefault(int(place), {})[moment] = value
    history = facts.get("history")
    if not isinstance(history, list):
        raise CheckpointError("holds no history", where=str(folder / f"{NAME}.json"))
    try:
        progress.model.load_state_dict(weights)
        _load_moments(progress.optimizer, moments)
    except (RuntimeError, ValueError, IndexError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"is of another model or optimiser: {first_line}", where=str(folder)
        ) from error
    progress.history[:] = history


def _load_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """Load with the memory layout of each weight: the same layout gives the same last bit."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    laid_out = {
        place: {
            name: torch.empty_like(weights[place]).copy_(value)
            if value.shape == weights[place].shape
            else value
            for name, value in values.items()
        }
        for place, values in moments.items()
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})
