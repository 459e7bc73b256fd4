"""Batch norm and dropout that act on the global batch of all processes.

- `GlobalBatch` computes them over the images of all processes while a network trains.
- `remeasure_batch_norm` replaces the running averages before a network is evaluated. With few steps
  in an epoch, torch's running averages belong to weights that have since changed, and a network
  that trains well would be evaluated as if at random.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, distributed, nn
from torch.overrides import TorchFunctionMode

from glomerulab.models.layers import is_batch_norm


class GlobalBatch(TorchFunctionMode):
    """Context in which batch norm and dropout, in training mode, act on the global batch.

    Batch norm takes mean and variance over the images of all processes. Dropout draws the mask of
    all images and applies this process's rows. So the result does not depend on the number of
    processes, except for rounding. (torch's synchronised batch norm is for GPUs only.)

    Two functions of torch are overridden rather than layers, since networks of other libraries
    have their own batch norm layers.

    Notes
    -----
    The random numbers of dropout come from torch's global generator, which must have the same seed
    in every process.
    """

    def __init__(self, *, process: int, n_processes: int) -> None:
        super().__init__()
        self.process = process
        self.n_processes = n_processes
        self.n_images = 0
        """Of all processes, in the next forward pass; set by the caller."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - any result
        """Override batch norm and dropout only."""
        options = kwargs or {}
        if func is torch.nn.functional.batch_norm:
            return _batch_norm(*args, **options)
        if func is torch.nn.functional.dropout:
            return self._dropout(*args, **options)
        return func(*args, **options)

    def _dropout(
        self,
        values: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        del inplace  # the caller uses the result
        if not training or p == 0.0:
            return values
        of_all = values.new_ones((self.n_images, *values.shape[1:]))
        mask = torch.nn.functional.dropout(of_all, p, training=True)
        return values * mask[self.process :: self.n_processes]


class _SumOverProcesses(torch.autograd.Function):
    """Differentiable sum over all processes; that of torch is deprecated."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        del context
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        # The value of one process is in the sum of each: so are all of their gradients.
        return _SumOverProcesses.forward(context, gradients[0])


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)
    return total


def _batch_norm(  # noqa: PLR0917 - torch's own signature
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return torch.nn.functional.batch_norm(
            values, running_mean, running_var, weight, bias, training=False, eps=eps
        )
    others = [axis for axis in range(values.dim()) if axis != 1]
    exact = values.float()
    n_here = exact.new_full((1,), values.numel() / values.shape[1])
    n_all = _sum_over_processes(n_here)
    # Two passes, since the variance as a difference of large sums loses precision.
    mean = _sum_over_processes(exact.sum(others)) / n_all
    shape = [1, -1] + [1] * (values.dim() - 2)
    centred = exact - mean.view(shape)
    variance = _sum_over_processes(centred.square().sum(others)) / n_all
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * n_all / (n_all - 1.0).clamp(min=1.0)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    normalised = centred * scale.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(values.dtype)


def remeasure_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], *, accelerator: Accelerator, use_bfloat16: bool
) -> None:
    """Set the running averages of every batch norm in training mode to those of the given images.

    Parameters
    ----------
    model : Module
        Its other weights, and batch norms in evaluation mode (frozen ones), do not change.
    batches : iterable of Tensor of float, shape (B, 3, H, W)
        This process's share, on its device. All batches have the same weight.
    accelerator : Accelerator
        The averages are taken over the batches of all processes.
    use_bfloat16 : bool
        Whether the forward pass runs under autocast.

    Notes
    -----
    "Precise batch norm" of [1]_, Section 3: the mean over the batches of the mean and the unbiased
    variance of each.

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
        norm.momentum = None  # cumulative average: all batches have the same weight
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
    return [
        layer
        for layer in model.modules()
        if is_batch_norm(layer) and layer.training and layer.track_running_stats
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
