"""Turn logits into probabilities, and compare them with labels, for both heads.

Softmax: exactly one class per image. Sigmoid: each label by itself.
"""

from typing import get_args

from torch import Tensor

from glomerulab.predictions import Head

__all__ = ["is_correct", "probabilities"]


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
    _check(head)
    exact = logits.double()
    return exact.softmax(dim=1) if head == "softmax" else exact.sigmoid()


def is_correct(logits: Tensor, labels: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Return for each image whether the model is correct, and whether enough labels are known.

    Parameters
    ----------
    logits : Tensor of float, shape (B, K)
    labels : Tensor of float, shape (B, K)
        1, 0 or NaN where unknown.
    head : {"softmax", "sigmoid"}

    Returns
    -------
    correct : Tensor of bool, shape (B,)
        Softmax: the likeliest class is present. Sigmoid: every known label is on the right side of
        one half.
    known : Tensor of bool, shape (B,)
        Softmax: some label is present. Sigmoid: some label is known.

    Raises
    ------
    ValueError
        If the head is unknown.
    """
    _check(head)
    if head == "softmax":
        present = labels == 1
        chosen = logits.argmax(dim=1, keepdim=True)  # (B, 1)
        return present.gather(1, chosen).squeeze(1), present.any(dim=1)
    unknown = labels.isnan()
    correct = ((logits > 0) == (labels == 1)) | unknown
    return correct.all(dim=1), ~unknown.all(dim=1)


def _check(head: Head) -> None:
    if head not in get_args(Head):
        raise ValueError(f"head must be one of {get_args(Head)}, got {head!r}")
