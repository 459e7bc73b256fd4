"""In which numbers a network computes: bfloat16 where it is faster and right, else float32."""

from typing import Literal

import torch

from glomerulab.errors import ConfigError
from glomerulab.training.environment import cpu_flags

__all__ = ["LEAST_BFLOAT16_SIZE", "Precision", "has_bfloat16", "uses_bfloat16"]

Precision = Literal["auto", "float32", "bfloat16"]

LEAST_BFLOAT16_SIZE = 33
"""Height and width of images, px. Below, the last stage of a ResNet strides over maps 2 px wide,
and there PyTorch's bfloat16 convolutions on CPUs return what was in memory (2.14, oneDNN)."""


def uses_bfloat16(precision: Precision, device: torch.device, *, input_size: int) -> bool:
    """Return whether a network computes in bfloat16.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        ``auto``: bfloat16 where the device has it and its convolutions can be trusted.
    device : torch.device
    input_size : int
        Height and width of the images, px.

    Returns
    -------
    bool

    Raises
    ------
    ConfigError
        If bfloat16 is asked for on a CPU with images of 32 px or less.
    """
    is_trusted = device.type != "cpu" or input_size >= LEAST_BFLOAT16_SIZE
    if precision == "bfloat16" and not is_trusted:
        raise ConfigError(
            f"precision = 'bfloat16' takes images of {LEAST_BFLOAT16_SIZE} px or more on a CPU, "
            f"got input_size = {input_size}; set precision = 'auto'"
        )
    return is_trusted and (has_bfloat16(device) if precision == "auto" else precision == "bfloat16")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 by itself; elsewhere it would be slower.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    bool
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and "avx512_bf16" in cpu_flags()
