"""The processor: its name, and whether a network is computed in bfloat16 on it."""

import platform
from pathlib import Path
from typing import Literal

import torch

from glomerulab.errors import ConfigError

__all__ = ["has_bfloat16", "processor_name"]

Precision = Literal["auto", "float32", "bfloat16"]

MIN_BFLOAT16_SIZE = 33
"""Height and width of images, px. Below, the last stage of a ResNet strides over maps 2 px wide,
and there PyTorch's bfloat16 convolutions on CPUs return uninitialised memory (2.14, oneDNN)."""


def uses_bfloat16(precision: Precision, device: torch.device, *, input_size: int) -> bool:
    """Return whether a network is computed in bfloat16."""
    is_correct = device.type != "cpu" or input_size >= MIN_BFLOAT16_SIZE
    if precision == "bfloat16" and not is_correct:
        raise ConfigError(
            f"precision = 'bfloat16' needs images of {MIN_BFLOAT16_SIZE} px or more on a CPU, "
            f"got input_size = {input_size}; set precision = 'auto'"
        )
    return is_correct and (has_bfloat16(device) if precision == "auto" else precision == "bfloat16")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device supports bfloat16 natively; emulation would be slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and "avx512_bf16" in _cpu_info()


def processor_name() -> str:
    """Return the name of the GPU, or else of the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in _cpu_info().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _cpu_info() -> str:
    """Return Linux's description of the processors; empty on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.is_file() else ""
