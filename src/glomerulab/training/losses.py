"""What training minimises, for both heads; unknown labels weigh nothing.

Each loss comes as a sum and the count it is of, so that the mean over a batch that several
processes share is exact.
"""

import torch
from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["loss_sum", "sigmoid_loss", "softmax_loss"]


def softmax_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of exactly one class.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    label_smoothing : float, default 0.0
        Share of the target that is spread over all classes.

    Returns
    -------
    total : Tensor, scalar
    n_known : Tensor, scalar
        Images with at least one present label; the others are left out.

    Notes
    -----
    Ours, not the paper's: an image with several labels present (crescent and sclerosis at once) has
    a target that shares 1 equally between them, since one class alone would be wrong.
    """
    present = (labels == 1).to(logits.dtype)
    n_present = present.sum(dim=1, keepdim=True)  # (B, 1)
    target = present / n_present.clamp(min=1.0)
    known = (n_present > 0).to(logits.dtype)  # (B, 1)
    target = (1.0 - label_smoothing) * target + label_smoothing / logits.shape[1]
    per_image = -(target * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)
    return (per_image * known).sum(), known.sum()


def sigmoid_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy of each label on its own.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    label_smoothing : float, default 0.0
        Targets become this half nearer to one half.

    Returns
    -------
    total : Tensor, scalar
    n_known : Tensor, scalar
        Labels, over all images, that are not unknown.
    """
    known = ~labels.isnan()
    target = torch.where(known, labels, torch.zeros_like(labels)).to(logits.dtype)
    target = (1.0 - label_smoothing) * target + 0.5 * label_smoothing
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * known).sum(), known.sum().to(logits.dtype)


def loss_sum(
    logits: Tensor, labels: Tensor, head: Head, *, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the loss of a head as sum and count; see `softmax_loss` and `sigmoid_loss`."""
    loss = softmax_loss if head == "softmax" else sigmoid_loss
    return loss(logits.float(), labels, label_smoothing=label_smoothing)
