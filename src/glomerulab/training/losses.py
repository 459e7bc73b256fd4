"""What training minimises, for both heads; unknown labels weigh nothing.

Each loss comes as a sum, and `known_weight` is what it is divided by, so that the mean over a batch
that several processes share, or that is computed in parts, is exact.
"""

import torch
from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["known_weight", "loss_sum", "sigmoid_loss", "softmax_loss"]


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
        The second row is how much each class counts.

    Returns
    -------
    Tensor, scalar
        Images without a present label are left out.

    Notes
    -----
    Ours, not the paper's: an image with several labels present (crescent and sclerosis at once) has
    a target that shares 1 equally between them, since one class alone would be wrong.
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
    """Binary cross-entropy of each label on its own, summed over images and labels.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    label_smoothing : float, default 0.0
        Targets become this half nearer to one half.
    weights : Tensor of float, shape (2, K), optional
        How much each label counts where it is absent, and where it is present.

    Returns
    -------
    Tensor, scalar
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
    """Return what the sum of a loss is divided by to become a mean.

    Parameters
    ----------
    labels : Tensor of float, shape (B, K)
    head : {"softmax", "sigmoid"}
    weights : Tensor of float, shape (2, K), optional

    Returns
    -------
    Tensor, scalar
        Softmax: the images with a present label; sigmoid: the known labels. Each counts by its
        weight.
    """
    if head == "sigmoid":
        return _sigmoid_weights(labels, weights).sum()
    target = _softmax_target(labels)
    return (target if weights is None else target * weights[1]).sum()


def _softmax_target(labels: Tensor) -> Tensor:
    """Share 1 equally among the labels that are present, shape (B, K)."""
    present = (labels == 1).float()
    return present / present.sum(dim=1, keepdim=True).clamp(min=1.0)


def _sigmoid_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return what each label counts, shape (B, K): nothing where it is unknown."""
    known = (~labels.isnan()).float()
    return known if weights is None else known * torch.where(labels == 1, weights[1], weights[0])
