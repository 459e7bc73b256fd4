"""Losses of both heads, and the weights of their classes; unknown labels have weight 0.

Each loss is a sum and `known_weight` is its divisor, so that the mean over a batch is exact if the
batch is shared by several processes, or computed in micro-batches.
"""

import torch
from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["loss_sum"]


def softmax_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of exactly one class, summed over the images.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    label_smoothing : float, default 0.0
        Share of the target that is spread over all classes.
    weights : Tensor of float, shape (2, K), optional
        The second row holds the weight of each class.

    Returns
    -------
    Tensor, scalar
        Images without a present label are ignored.

    Notes
    -----
    Not in the paper: the target of an image with several labels present (crescent and sclerosis at
    once) is divided equally between them, since one class alone would be wrong.
    """
    target = _softmax_target(labels).to(logits.dtype)
    known = target.sum(dim=1, keepdim=True)  # (B, 1): 1 or 0
    target = (1.0 - label_smoothing) * target + known * label_smoothing / logits.shape[1]
    if weights is not None:
        target = target * weights[1]
    return -(target * logits.log_softmax(dim=1)).sum()


def sigmoid_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each label, summed over images and labels.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    label_smoothing : float, default 0.0
        Targets move by half of this towards one half.
    weights : Tensor of float, shape (2, K), optional
        Weights of absent and of present labels.
    """
    target = torch.where(labels.isnan(), 0.0, labels).to(logits.dtype)
    target = (1.0 - label_smoothing) * target + 0.5 * label_smoothing
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * _sigmoid_weights(labels, weights)).sum()


def loss_sum(
    logits: Tensor,
    labels: Tensor,
    head: Head,
    *,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of a head, summed; see `softmax_loss` and `sigmoid_loss`."""
    loss = softmax_loss if head == "softmax" else sigmoid_loss
    return loss(logits.float(), labels, label_smoothing=label_smoothing, weights=weights)


def known_weight(labels: Tensor, head: Head, *, weights: Tensor | None = None) -> Tensor:
    """Return the divisor that turns the sum of a loss into a mean.

    Parameters
    ----------
    labels : Tensor of float, shape (B, K)
    head : {"softmax", "sigmoid"}
    weights : Tensor of float, shape (2, K), optional

    Returns
    -------
    Tensor, scalar
        Softmax: the number of images with a present label; sigmoid: of known labels, both weighted.
    """
    if head == "sigmoid":
        return _sigmoid_weights(labels, weights).sum()
    target = _softmax_target(labels)
    return (target if weights is None else target * weights[1]).sum()


def _softmax_target(labels: Tensor) -> Tensor:
    """Divide 1 equally among the present labels, shape (B, K)."""
    present = (labels == 1).float()
    return present / present.sum(dim=1, keepdim=True).clamp(min=1.0)


def _sigmoid_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weight of each label, shape (B, K): 0 where it is unknown."""
    known = (~labels.isnan()).float()
    return known if weights is None else known * torch.where(labels == 1, weights[1], weights[0])


def label_weights(labels: Tensor, head: Head) -> Tensor:
    """Return the weights of absent and present labels in the loss, by inverse frequency.

    Parameters
    ----------
    labels : Tensor of float, shape (N, K)
        1, 0 or NaN where unknown, of the training part.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    Tensor of float, shape (2, K)
        Of absent labels, and of present ones. Under sigmoid both sides of a label have the same
        sum; under softmax only the second row is used, and all classes have the same sum. The mean
        over the images is 1.

    Notes
    -----
    ``n / (K n_k)``, scikit-learn's "balanced". A label that is always present, or always absent,
    has weight 1.
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
