"""Batch norms of a ResNet carried over to a network that has its norms before the convolutions."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["carry_stem", "measure", "scale_and_offset", "set_identity"]

NORM_EPS = 1e-5
"""Of the batch norms of timm's and torchvision's ResNets."""


def scale_and_offset(weights: Mapping[str, Tensor], norm: str) -> tuple[Tensor, Tensor]:
    """Return what a batch norm multiplies each channel by when it judges, and what it adds.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Of a network.
    norm : str
        Name of the batch norm in it.

    Returns
    -------
    scale, offset : Tensor, shape (C,)
    """
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + NORM_EPS).sqrt()
    return scale, weights[f"{norm}.bias"] - scale * weights[f"{norm}.running_mean"]


@torch.no_grad()
def carry_stem(stem: nn.Sequential, weights: Mapping[str, Tensor]) -> Tensor:
    """Give a stem without a norm a ResNet's convolution, and return what its norm adds, shape (C,).

    Pooling keeps the order of values, so it may stand before that offset and the ReLU.

    Parameters
    ----------
    stem : Sequential
        A convolution and a pooling; the scale of the ResNet's norm goes into the convolution.
    weights : mapping of str to Tensor
        Of a ResNet, names as torchvision and timm give them.

    Returns
    -------
    Tensor
    """
    scale, offset = scale_and_offset(weights, "bn1")
    kernel = weights["conv1.weight"] * scale[:, None, None, None]
    stem.load_state_dict({"0.weight": kernel}, strict=False)
    return offset


@torch.no_grad()
def measure(norm: nn.BatchNorm2d, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Set the averages of a batch norm to those of maps, shape (B, C, H, W), and return them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(maps.mean(dim=(0, 2, 3)))
    norm.running_var.copy_(maps.var(dim=(0, 2, 3)))
    return norm.running_mean, norm.running_var


@torch.no_grad()
def set_identity(norm: nn.BatchNorm2d, maps: Tensor, offset: Tensor) -> None:
    """Let a batch norm add an offset, shape (C,), and nothing else, on the statistics of maps."""
    mean, variance = measure(norm, maps)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + offset)
