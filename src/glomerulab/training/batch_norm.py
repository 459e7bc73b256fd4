"""Batch norm statistics that belong to the weights as they stand.

Batch norm normalises by the batch while it trains and by running averages when it judges. With few
steps in an epoch those averages are of weights long gone: the network that trains well judges at
random. So they are measured anew, with the weights held still, before anything is judged.
"""

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

__all__ = ["remeasure_batch_norm"]


def remeasure_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], *, accelerator: Accelerator, use_bfloat16: bool
) -> None:
    """Set the running averages of every batch norm that trains to those of the given images.

    Parameters
    ----------
    model : Module
        Its other weights do not change. Batch norms in evaluation mode (frozen ones) stay as they
        are.
    batches : iterable of Tensor of float, shape (B, 3, H, W)
        This process's share, on its device. Every batch counts the same.
    accelerator : Accelerator
        The averages are those over the batches of all processes.
    use_bfloat16 : bool
        Whether the forward pass runs under autocast.

    Notes
    -----
    "Precise batch norm" of [1]_, Section 3: the mean over the batches of each one's mean and
    unbiased variance.

    References
    ----------
    .. [1] Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv:2105.07576, 2021.
    """
    norms = _training_norms(model)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average in which every batch counts the same
    n_batches = 0
    try:
        with (
            torch.no_grad(),
            torch.autocast(accelerator.device.type, torch.bfloat16, enabled=use_bfloat16),
        ):
            for images in batches:
                model(images)
                n_batches += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    _average_over_processes(norms, n_batches, accelerator)


def _training_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    kind = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the one base of all batch norms
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, kind) and layer.training and layer.track_running_stats
    ]


def _average_over_processes(
    norms: list[nn.modules.batchnorm._BatchNorm], n_batches: int, accelerator: Accelerator
) -> None:
    if accelerator.num_processes == 1:
        return
    count = torch.tensor(float(n_batches), device=accelerator.device)
    n_all = accelerator.reduce(count, "sum")
    for norm in norms:
        for average in (norm.running_mean, norm.running_var):
            if average is not None:
                average.copy_(accelerator.reduce(average * n_batches, "sum") / n_all)
