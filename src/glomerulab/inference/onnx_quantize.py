"""An exported network in 8-bit integers: less exact, and faster where the processor has VNNI."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["write_int8"]

BATCH = 16


class _Shown(CalibrationDataReader):  # type: ignore[misc]
    """Images in batches, as ONNX Runtime asks for them."""

    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self._batches: Iterator[npt.NDArray[np.uint8]] = iter(
            [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        )

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def write_int8(source: Path, path: Path, images: npt.NDArray[np.uint8]) -> None:
    """Quantise the convolutions of an exported network.

    Parameters
    ----------
    source : Path
        A float32 network of `write_onnx`.
    path : Path
        Replaced if it exists.
    images : ndarray of uint8, shape (N, S, S, 3)
        Training images: they show how far the values of each layer reach.

    Notes
    -----
    Weights have a scale per output channel, activations one per layer, between the smallest and
    largest value seen. Everything but convolutions and the classifier stays in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            path,
            _Shown(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )
