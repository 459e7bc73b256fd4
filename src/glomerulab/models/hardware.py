"""The processor: its name, and whether a network is computed in bfloat16 on it."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode

from glomerulab.errors import ConfigError

__all__ = ["autocast", "has_bfloat16", "processor_name"]

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


@contextmanager
def autocast(device: torch.device, *, use_bfloat16: bool) -> Iterator[None]:
    """Compute in bfloat16 what gains by it, in a forward pass that is trained."""
    with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16):
        if use_bfloat16 and device.type == "cpu":
            with _DepthwiseInFloat32():
                yield
        else:
            yield


class _DepthwiseInFloat32(TorchFunctionMode):
    """Context in which depthwise convolutions that are trained are computed in float32.

    On CPUs their derivative takes longer in bfloat16 than in float32 (PyTorch 2.14, oneDNN;
    benchmarks/models.py).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - any result
        """Override depthwise convolutions only."""
        options = kwargs or {}
        if func is torch.conv2d and len(args) > 1 and _is_trained_depthwise(args[1]):
            images, *others = args
            with torch.autocast("cpu", enabled=False):
                return func(images.float(), *others, **options).to(torch.bfloat16)
        return func(*args, **options)


def _is_trained_depthwise(weight: torch.Tensor) -> bool:
    is_trained = torch.is_grad_enabled() and weight.requires_grad
    return is_trained and weight.shape[1] == 1 and weight.dtype == torch.float32


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
