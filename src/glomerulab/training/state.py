"""The state of a training, saved after every epoch so that a killed run can be resumed.

Weights, optimiser and history, as safetensors and JSON without pickle.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.checkpoint import read_tensors, write_tensors
from glomerulab.training.history import EpochRow

NAME = "state"


@dataclass(slots=True)
class TrainingState:
    """Everything that an epoch passes to the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: list[EpochRow]


def has_state(folder: Path) -> bool:
    """Return whether the state of a completed epoch is saved in a folder."""
    return (folder / f"{NAME}.json").is_file()


def save_state(folder: Path, state: TrainingState, weights: dict[str, Tensor]) -> None:
    """Save the state atomically; `weights` are those of the unwrapped model."""
    tensors = {f"model.{name}": value for name, value in weights.items()}
    moments = state.optimizer.state_dict()["state"]
    for index, values in moments.items():
        for name, value in values.items():
            if value is not None:  # SGD without momentum has a name without a value
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    write_tensors(folder, NAME, tensors, {"history": state.history})


def load_state(folder: Path, state: TrainingState) -> None:
    """Restore model (unwrapped), optimiser and history in place."""
    tensors, facts = read_tensors(folder, NAME)
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        if kind == "model":
            weights[name] = value
        else:
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = value
    history = facts.get("history")
    if not isinstance(history, list):
        raise CheckpointError(
            "the saved state has no history; train again", where=str(folder / f"{NAME}.json")
        )
    try:
        state.model.load_state_dict(weights)
        _load_moments(state.optimizer, moments)
    except (RuntimeError, ValueError, IndexError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(
            f"the saved state is of another model or optimiser: {first_line}", where=str(folder)
        ) from error
    state.history[:] = history


def _load_moments(optimizer: torch.optim.Optimizer, moments: dict[int, dict[str, Tensor]]) -> None:
    """Load with the memory layout of each weight, which makes the results identical to the bit."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    laid_out = {
        index: {
            name: torch.empty_like(weights[index]).copy_(value)
            if value.shape == weights[index].shape
            else value
            for name, value in values.items()
        }
        for index, values in moments.items()
    }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})
