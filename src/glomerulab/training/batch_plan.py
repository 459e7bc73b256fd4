"""The batches of an epoch, their micro-batches, and the share of each process.

Every rank builds the same batches and takes its slice, so no communication is needed.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glomerulab.errors import TrainingError
from glomerulab.training.config import TrainConfig
from glomerulab.training.dataset import ItemKey

Step = list[list[ItemKey]]
"""The images of one optimiser step, in the micro-batches they are computed in."""


def plan_epoch(labels: npt.NDArray[np.floating], config: TrainConfig, epoch: int) -> list[Step]:
    """Divide the images of an epoch into steps of nearly equal size, so that none is tiny.

    Parameters
    ----------
    labels : ndarray of float, shape (N, K)
        Of the training part; used only with ``balance = "sampling"``.

    Returns
    -------
    list of Step
        The same for the same seed and epoch.
    """
    rng = np.random.default_rng((config.seed, epoch))
    if config.balance == "sampling":
        order = balanced_sample(labels, rng)
    else:
        order = rng.permutation(len(labels))
    return [
        [
            [ItemKey(int(row), epoch) for row in part]
            for part in np.array_split(batch, config.accumulate)
        ]
        for batch in np.array_split(order, steps_per_epoch(len(order), config))
    ]


def steps_per_epoch(n_images: int, config: TrainConfig) -> int:
    """Return the number of optimiser steps in an epoch."""
    return -(-n_images // config.batch_size)


def share_of_process(
    keys: Sequence[list[ItemKey]], *, process: int, n_processes: int
) -> list[list[ItemKey]]:
    """Return one process's images of every list."""
    return [part[process::n_processes] for part in keys]


def smallest_part(n_images: int, config: TrainConfig) -> int:
    """Return the number of images in the smallest micro-batch of an epoch, of all processes."""
    return n_images // steps_per_epoch(n_images, config) // config.accumulate


def check_shares(n_images: int, config: TrainConfig, *, n_processes: int) -> None:
    """Check that every process has an image in every micro-batch."""
    if smallest_part(n_images, config) < n_processes:
        raise TrainingError(
            f"{n_images} training images in batches of {config.batch_size}, cut into "
            f"{config.accumulate}, leave fewer than one for each of {n_processes} processes; raise "
            "batch_size, or lower accumulate or the number of processes"
        )


def balanced_sample(
    labels: npt.NDArray[np.floating], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw as many images as there are, so that labels occur equally often.

    Parameters
    ----------
    labels : ndarray of float, shape (N, K)
        1, 0 or NaN where unknown.

    Returns
    -------
    ndarray of int64, shape (N,)
        Indices, in random order; an image of a rare label occurs several times, one of a frequent
        label perhaps not at all.

    Notes
    -----
    The expected count of an image is the inverse frequency of its rarest label ("repeat factor",
    Gupta et al. 2019, LVIS, Section 4.2); images without any label count as a label of their own.
    Systematic sampling: the count differs from the expected one by less than 1.
    """
    present = np.asarray(labels) == 1  # NaN compares False
    columns = np.column_stack([present, ~present.any(axis=1)])
    rarity = columns * (1.0 / np.maximum(columns.sum(axis=0), 1))
    share = rarity.max(axis=1)
    order = rng.permutation(len(share))
    ends = np.cumsum(share[order] / share.sum() * len(share))
    positions = rng.random() + np.arange(len(share))
    chosen = np.searchsorted(ends, positions).clip(max=len(share) - 1)
    drawn: npt.NDArray[np.int64] = order[rng.permutation(chosen)]
    return drawn
