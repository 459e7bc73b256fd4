"""What logits mean: exactly one class (softmax), or each label on its own (sigmoid)."""

from typing import get_args

from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["Head", "agrees", "probabilities"]


def probabilities(logits: Tensor, head: Head) -> Tensor:
    """Turn logits into probabilities.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    head : {"softmax", "sigmoid"}

    Returns
    -------
    Tensor of float64, shape (B, K)
        From 0 to 1; under softmax each row sums to 1.

    Raises
    ------
    ValueError
        If the head is unknown.
    """
    if head not in get_args(Head):
        raise ValueError(f"head must be one of {get_args(Head)}, got {head!r}")
    exact = logits.double()
    return exact.softmax(dim=1) if head == "softmax" else exact.sigmoid()


def agrees(logits: Tensor, labels: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Say for each image whether the model is right, as far as people know.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    right : Tensor of bool, shape (B,)
        Softmax: the likeliest class is present. Sigmoid: every known label is on the right side of
        one half.
    known : Tensor of bool, shape (B,)
        Whether the labels say enough to judge: under softmax a label that is present, under
        sigmoid any label at all.

    Raises
    ------
    ValueError
        If the head is unknown.
    """
    if head not in get_args(Head):
        raise ValueError(f"head must be one of {get_args(Head)}, got {head!r}")
    if head == "softmax":
        present = labels == 1
        chosen = logits.argmax(dim=1, keepdim=True)  # (B, 1)
        return present.gather(1, chosen).squeeze(1), present.any(dim=1)
    unknown = labels.isnan()
    right = ((logits > 0) == (labels == 1)) | unknown
    return right.all(dim=1), ~unknown.all(dim=1)
