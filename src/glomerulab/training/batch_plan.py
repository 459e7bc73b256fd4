"""Which images an epoch shows, in which steps, and which part of each step a process computes.

Every process deals the same cards and picks up its own, so none has to tell another.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glomerulab.errors import TrainingError
from glomerulab.training.balance import balanced_draw
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import ItemKey

__all__ = ["Step", "deal_epoch", "own_share", "refuse_empty_shares", "steps_per_epoch"]

Step = list[list[ItemKey]]
"""The images of one step of the weights, in the parts they are computed in."""


def deal_epoch(labels: npt.NDArray[np.floating], config: TrainConfig, epoch: int) -> list[Step]:
    """Deal the images of an epoch into steps of nearly equal size, so that none is tiny.

    Parameters
    ----------
    labels : ndarray of float, shape (N, K)
        Of the training part; only ``balance = "sampling"`` looks at them.
    config : TrainConfig
    epoch : int

    Returns
    -------
    list of Step
        The same for the same seed and epoch.
    """
    rng = np.random.default_rng((config.seed, epoch))
    if config.balance == "sampling":
        order = balanced_draw(labels, rng)
    else:
        order = rng.permutation(len(labels))
    return [
        [[ItemKey(int(place), epoch) for place in part] for part in _cut(batch, config.accumulate)]
        for batch in _cut(order, steps_per_epoch(len(order), config))
    ]


def steps_per_epoch(n_images: int, config: TrainConfig) -> int:
    """Return how many times the weights move in an epoch."""
    return -(-n_images // config.batch_size)


def own_share(
    keys: Sequence[list[ItemKey]], *, process: int, n_processes: int
) -> list[list[ItemKey]]:
    """Return one process's images of every list.

    Parameters
    ----------
    keys : sequence of list of ItemKey
    process, n_processes : int

    Returns
    -------
    list of list of ItemKey
    """
    return [part[process::n_processes] for part in keys]


def refuse_empty_shares(n_images: int, config: TrainConfig, *, n_processes: int) -> None:
    """Make sure that every process has an image in every part of every step.

    Parameters
    ----------
    n_images : int
        Of the training part.
    config : TrainConfig
    n_processes : int

    Raises
    ------
    TrainingError
        If one would have none: it could not take part in the step.
    """
    smallest = n_images // steps_per_epoch(n_images, config) // config.accumulate
    if smallest < n_processes:
        raise TrainingError(
            f"{n_images} training images in batches of {config.batch_size}, cut into "
            f"{config.accumulate}, leave fewer than one for each of {n_processes} processes; raise "
            "batch_size, or lower accumulate or the number of processes"
        )


def _cut(places: npt.NDArray[np.int64], n_parts: int) -> list[npt.NDArray[np.int64]]:
    return np.array_split(places, n_parts)
