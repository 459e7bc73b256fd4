"""Against rare classes: weights in the loss, or rare images shown more often.

Both follow from how often each label stands in the training part; nothing else is looked at.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["balanced_draw", "label_weights"]


def label_weights(labels: Tensor, head: Head) -> Tensor:
    """Return how much an absent and a present label count in the loss, by inverse frequency.

    Parameters
    ----------
    labels : Tensor of float, shape (N, K)
        1, 0 or NaN where unknown, of the training part.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    Tensor of float, shape (2, K)
        Of absent labels, and of present ones. Under sigmoid both sides of a label come to the same
        sum; under softmax, where one class is asked for, only the second row is used, and all
        classes come to the same sum. The mean over the images is 1.

    Notes
    -----
    ``n / (K n_k)``, scikit-learn's "balanced". A label with one side only keeps weight 1 on it.
    """
    n_present = (labels == 1).sum(dim=0).float()  # (K,)
    n_absent = (labels == 0).sum(dim=0).float()
    if head == "softmax":
        present = n_present.sum() / (len(n_present) * n_present.clamp(min=1.0))
        return torch.stack([torch.ones_like(present), present])
    both = (n_present > 0) & (n_absent > 0)
    half = (n_present + n_absent) / 2.0
    ones = torch.ones_like(half)
    return torch.stack(
        [torch.where(both, half / side.clamp(min=1.0), ones) for side in (n_absent, n_present)]
    )


def balanced_draw(
    labels: npt.NDArray[np.floating], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw as many images as there are, so that labels are seen equally often.

    Parameters
    ----------
    labels : ndarray of float, shape (N, K)
        1, 0 or NaN where unknown.
    rng : Generator

    Returns
    -------
    ndarray of int64, shape (N,)
        Places, in random order; an image of a rare label stands there several times, one of a
        frequent label perhaps not at all.

    Notes
    -----
    An image is expected as often as its rarest label is rare ("repeat factor", Gupta et al. 2019,
    LVIS, Section 4.2); an image without any label counts as one of a label of its own. Drawn by
    systematic sampling: the number of times never differs from the expected one by 1 or more.
    """
    present = np.asarray(labels) == 1  # NaN compares False
    columns = np.column_stack([present, ~present.any(axis=1)])
    rarity = columns * (1.0 / np.maximum(columns.sum(axis=0), 1))
    share = rarity.max(axis=1)
    order = rng.permutation(len(share))
    ends = np.cumsum(share[order] / share.sum() * len(share))
    marks = rng.random() + np.arange(len(share))
    chosen = np.searchsorted(ends, marks).clip(max=len(share) - 1)
    drawn: npt.NDArray[np.int64] = order[rng.permutation(chosen)]
    return drawn
