"""The history for TensorBoard, where the user asks for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from glomerulab.errors import ConfigError
from glomerulab.training.history import EpochRow

__all__ = ["board"]


@contextmanager
def board(folder: Path, *, n_done: int) -> Iterator[Callable[[EpochRow], None]]:
    """Give a function that writes an epoch's row to a folder that TensorBoard reads.

    Parameters
    ----------
    folder : Path
        Made if needed.
    n_done : int
        Epochs that stand; what a killed run wrote of later ones is not shown.

    Yields
    ------
    callable
        Takes a row of the history.

    Raises
    ------
    ConfigError
        If TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard = true needs TensorBoard: install glomerulab[tensorboard], or leave it out"
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
