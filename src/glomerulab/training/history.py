"""The history of a run, one row per epoch, and what is read from it: the best epoch, and the end.

All that decides when to stop and what to keep stands in it, so a resumed run decides alike.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glomerulab.errors import TrainingError
from glomerulab.runtime.files import atomic_write
from glomerulab.training.config import TrainConfig

__all__ = [
    "EpochRow",
    "is_best",
    "is_stale",
    "progress_text",
    "refuse_not_finite",
    "write_history",
]

EpochRow = dict[str, float | None]
"""One row of ``history.csv``."""


def is_best(row: EpochRow, earlier: Sequence[EpochRow]) -> bool:
    """Return whether a row has a lower validation loss than all before; without one it has not."""
    loss = row["validation_loss"]
    if loss is None:
        return False
    return all(
        other["validation_loss"] is None or loss < other["validation_loss"] for other in earlier
    )


def is_stale(history: Sequence[EpochRow], patience: int | None) -> bool:
    """Say whether the last epochs were all worse than one before them.

    Parameters
    ----------
    history : sequence of EpochRow
    patience : int or None
        How many epochs; None has endless patience.

    Returns
    -------
    bool

    Examples
    --------
    >>> is_stale([{"validation_loss": loss} for loss in (0.5, 0.4, 0.6, 0.4)], 2)
    True
    """
    if patience is None:
        return False
    best = max((at for at, row in enumerate(history) if is_best(row, history[:at])), default=None)
    return best is not None and len(history) - 1 - best >= patience


def progress_text(history: Sequence[EpochRow], config: TrainConfig) -> str:
    """Say which epoch runs, and what the last one came to.

    Parameters
    ----------
    history : sequence of EpochRow
    config : TrainConfig

    Returns
    -------
    str
        Such as ``Epoch 4/60 (loss 0.513; validation loss 0.601, accuracy 0.875; 14.2 img/s)``.
    """
    epoch = f"Epoch {min(len(history) + 1, config.epochs)}/{config.epochs}"
    if not history:
        return epoch
    last = history[-1]
    facts = [f"loss {last['train_loss']:.3f}"]
    if last["validation_loss"] is not None:
        facts.append(
            f"validation loss {last['validation_loss']:.3f}, "
            f"accuracy {last['validation_accuracy']:.3f}"
        )
    facts.append(f"{last['images_per_second']:.1f} img/s")
    return f"{epoch} ({'; '.join(facts)})"


def refuse_not_finite(row: EpochRow) -> None:
    """Make sure that the losses are numbers.

    Parameters
    ----------
    row : EpochRow

    Raises
    ------
    TrainingError
        If one is NaN or infinite.
    """
    for name in ("train_loss", "validation_loss"):
        value = row[name]
        if value is not None and not np.isfinite(value):
            raise TrainingError(
                f"{name} is {value} in epoch {row['epoch']}; nothing of this epoch was kept. Give "
                "--resume with a lower optimizer.learning_rate, a clip_gradient_norm, or "
                "precision = 'float32' to go on from the epoch before"
            )


def write_history(history: Sequence[EpochRow], path: Path) -> None:
    """Write the history as CSV, whole or not at all.

    Parameters
    ----------
    history : sequence of EpochRow
        At least one.
    path : Path
        Replaced if it exists.
    """
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
