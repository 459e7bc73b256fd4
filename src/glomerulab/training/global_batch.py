"""What must see the whole batch sees it, though several processes hold a share each.

Batch norm takes its mean and variance over the images of all processes, and dropout draws the mask
of all of them and applies the own rows. So a training does not depend on how many processes it was
started with, but for rounding. torch has a batch norm like this for GPUs only.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed
from torch.overrides import TorchFunctionMode

__all__ = ["GlobalBatch"]


class GlobalBatch(TorchFunctionMode):
    """While it is active, batch norm and dropout in training work on the images of all processes.

    It stands in for the two functions rather than for layers, since networks of other libraries
    have batch norm layers of their own.

    Parameters
    ----------
    process, n_processes : int
        Images are dealt round: process p has rows p, p + n, p + 2n, … of a batch.

    Notes
    -----
    The random numbers of dropout come from torch's global generator, which must be seeded alike in
    every process.
    """

    def __init__(self, *, process: int, n_processes: int) -> None:
        super().__init__()
        self.process = process
        self.n_processes = n_processes
        self.n_images = 0
        """Of all processes together, in the forward pass to come; set by the caller."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        """Answer for batch norm and dropout, and let all else through."""
        given = kwargs or {}
        if func is torch.nn.functional.batch_norm:
            return _batch_norm(*args, **given)
        if func is torch.nn.functional.dropout:
            return self._dropout(*args, **given)
        return func(*args, **given)

    def _dropout(
        self,
        values: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        del inplace  # the caller uses what is returned
        if not training or p == 0.0:
            return values
        of_all = values.new_ones((self.n_images, *values.shape[1:]))
        mask = torch.nn.functional.dropout(of_all, p, training=True)
        return values * mask[self.process :: self.n_processes]


class _SumOverProcesses(torch.autograd.Function):
    """The sum over all processes; torch's own with a gradient is deprecated."""

    @staticmethod
    def forward(context: object, values: Tensor) -> Tensor:
        del context
        total = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        # What one process has counts in the sum of each: so do all of their gradients.
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
    # Two passes: the variance as a difference of large sums would lose its digits.
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
