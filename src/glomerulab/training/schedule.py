"""The learning rate of each epoch, as a function of the epoch alone: nothing to save or restore."""

import math
from bisect import bisect_right
from collections.abc import Sequence

__all__ = ["constant_rate", "cosine_rate", "multistep_rate"]


def constant_rate(epoch: int, *, initial: float) -> float:
    """Return the initial learning rate, whatever the epoch."""
    del epoch
    return initial


def multistep_rate(epoch: int, *, initial: float, milestones: Sequence[int], gamma: float) -> float:
    r"""Drop the learning rate by a factor at each milestone.

    Implements eq. (8) of [1]_: :math:`lr_0 \\cdot \\gamma^{bisect\\_right(milestones, epoch)}`.

    Parameters
    ----------
    epoch : int
        From 0.
    initial : float
    milestones : sequence of int
        Ascending; from the epoch that equals a milestone on, its factor applies.
    gamma : float

    Returns
    -------
    float

    References
    ----------
    .. [1] Sun et al., Chinese Journal of Medical Physics 39(10):1313-1320, 2022.

    Examples
    --------
    >>> [multistep_rate(e, initial=1.0, milestones=[60, 120], gamma=0.5) for e in (59, 60, 120)]
    [1.0, 0.5, 0.25]
    """
    return initial * gamma ** bisect_right(milestones, epoch)


def cosine_rate(epoch: int, *, initial: float, n_epochs: int, n_warmup: int = 0) -> float:
    """Rise linearly for the first epochs, then fall along half a cosine (Loshchilov & Hutter 2017).

    Parameters
    ----------
    epoch : int
        From 0.
    initial : float
        The highest rate.
    n_epochs : int
        In all; the rate would be 0 in the epoch after the last.
    n_warmup : int, default 0
        Epochs of the rise.

    Returns
    -------
    float
    """
    if epoch < n_warmup:
        return initial * (epoch + 1) / (n_warmup + 1)
    done = (epoch - n_warmup) / max(1, n_epochs - n_warmup)
    return initial * 0.5 * (1.0 + math.cos(math.pi * done))
