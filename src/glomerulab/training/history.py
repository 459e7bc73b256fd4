"""The history of a run, one row per epoch, as CSV and for TensorBoard.

The best epoch and early stopping are derived from it alone, so that a resumed run decides alike.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from glomerulab.errors import ConfigError, TrainingError
from glomerulab.runtime.files import atomic_write

EpochRow = dict[str, float | None]
"""One row of ``history.csv``."""


def is_best(row: EpochRow, earlier: Sequence[EpochRow]) -> bool:
    """Return whether a row has a lower validation loss than all earlier ones."""
    loss = row["validation_loss"]
    if loss is None:
        return False
    return all(
        other["validation_loss"] is None or loss < other["validation_loss"] for other in earlier
    )


def is_stale(history: Sequence[EpochRow], patience: int | None) -> bool:
    """Return whether the validation loss has not improved for `patience` epochs.

    Examples
    --------
    >>> is_stale([{"validation_loss": loss} for loss in (0.5, 0.4, 0.6, 0.4)], 2)
    True
    """
    if patience is None:
        return False
    best = max(
        (index for index, row in enumerate(history) if is_best(row, history[:index])), default=None
    )
    return best is not None and len(history) - 1 - best >= patience


class _HasEpochs(Protocol):
    @property
    def epochs(self) -> int: ...


def progress_text(history: Sequence[EpochRow], config: _HasEpochs) -> str:
    """Return the present epoch and the results of the last one, for a progress bar.

    Such as ``Epoch 4/60 (loss 0.513; validation loss 0.601, accuracy 0.875; 14.2 img/s)``.
    """
    epoch = f"Epoch {min(len(history) + 1, config.epochs)}/{config.epochs}"
    if not history:
        return epoch
    last = history[-1]
    facts = [f"loss {last['train_loss']:.3f}"]
    if last["validation_loss"] is not None:
        score = "dice" if "validation_dice" in last else "accuracy"
        facts.append(
            f"validation loss {last['validation_loss']:.3f}, "
            f"{score.replace('dice', 'Dice')} {last[f'validation_{score}']:.3f}"
        )
    facts.append(f"{last['images_per_second']:.1f} img/s")
    return f"{epoch} ({'; '.join(facts)})"


def check_finite(row: EpochRow) -> None:
    """Raise a `TrainingError` if a loss is NaN or infinite."""
    for name in ("train_loss", "validation_loss"):
        value = row[name]
        if value is not None and not np.isfinite(value):
            raise TrainingError(
                f"{name} is {value} in epoch {row['epoch']}, which was discarded. Give "
                "--resume with a lower optimizer.learning_rate, a clip_gradient_norm, or "
                "precision = 'float32' to continue from the epoch before"
            )


def write_history(history: Sequence[EpochRow], path: Path) -> None:
    """Write a history of at least one epoch as CSV, atomically."""
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


@contextmanager
def tensorboard_writer(folder: Path, *, n_done: int) -> Iterator[Callable[[EpochRow], None]]:
    """Return a function that writes the row of an epoch for TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard = true needs TensorBoard: install glomerulab[tensorboard], or remove the "
            "setting"
        ) from error
    writer = SummaryWriter(folder, purge_step=n_done + 1)

    def write(row: EpochRow) -> None:
        for name, value in row.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
