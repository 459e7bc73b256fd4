"""Loss and scores of a segmenter on patches, over the pixels that are known."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

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
    loss: Tensor = _Loss.apply(logits.float().contiguous(), targets)
    return loss


class _Loss(torch.autograd.Function):
    """The loss with its derivative, channel by channel, so that what is computed stays in cache.

    Automatic differentiation would pass over the maps of the whole batch a dozen times.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss, and its derivative by the logits."""
        gradient = torch.empty_like(logits)
        used = (targets != UNKNOWN).sum((0, 2, 3)) > 0
        n_used = used.sum().clamp(min=1)
        loss = logits.new_zeros(())
        for k in range(logits.shape[1]):
            one, derivative = _of_channel(logits[:, k], targets[:, k])
            loss = loss + one / n_used
            gradient[:, k] = derivative / n_used
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: FunctionCtx, factor: Tensor) -> tuple[Tensor, None]:
        """Return the derivative by the logits."""
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * factor, None


def _of_channel(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of a channel, and its derivative by the logits, shape (B, H, W)."""
    known, truth = (targets != UNKNOWN).float(), (targets == 1).float()
    values = logits.sigmoid()
    n_known, n_true = known.sum().clamp(min=1.0), truth.sum()
    # -log(1 - p) = max(z, 0) + log(1 + exp(-|z|)); log1p would be slower, and needlessly exact
    each = (
        logits.abs().neg_().exp_().add_(1.0).log_().add_(logits.clamp(min=0)).sub_(logits * truth)
    )
    entropy = (each * known).sum() / n_known
    gradient = (values - truth).mul_(known).div_(n_known)
    shared, total = (values * truth).sum(), (values * known).sum() + n_true
    is_present = (n_true > 0).float()
    top, bottom = 2.0 * shared + SMOOTH, total + SMOOTH
    slope = values * (1.0 - values)  # of the sigmoid
    of_dice = truth.mul(2.0 / bottom).sub_(known * (top / bottom**2)).mul_(slope)
    return entropy + is_present * (1.0 - top / bottom), gradient.sub_(of_dice.mul_(is_present))


def soft_counts(values: Tensor, truth: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return per channel the sum shared with the truth, and the sum of both, over known pixels."""
    shared = (values * truth * known).sum((0, 2, 3))
    return shared, ((values + truth) * known).sum((0, 2, 3))
