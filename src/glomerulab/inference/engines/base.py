"""What turns images into logits and features, whatever runs it; without torch.

An engine is a run folder read by torch, or an exported folder read by ONNX Runtime. Both are shown
the very same bytes, so that their answers differ by rounding alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from glomerulab.images import RgbImage, resized
from glomerulab.models.card import ModelCard
from glomerulab.predictions import Head
from glomerulab.runtime.sealing import require_run_folder

__all__ = ["Answers", "Engine", "open_engine", "probabilities_of", "stacked"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a network says of a batch."""

    logits: npt.NDArray[np.float32]
    """Shape (B, K)."""
    features: npt.NDArray[np.float32]
    """Shape (B, D): the mean of each map of every stage, the first stage first."""


class Engine(Protocol):
    """A network, ready to answer."""

    card: ModelCard
    weights_sha256: str
    n_at_once: int
    """Threads that may ask at the same time, and are answered soonest if they do."""

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Answer a batch, shape (B, S, S, 3), S being ``card.input_size``."""
        ...


def open_engine(folder: Path) -> Engine:
    """Open a run folder, or what ``export`` made of one.

    Parameters
    ----------
    folder : Path
        Where ``model.onnx`` stands in it, ONNX Runtime runs it and torch is not loaded.

    Returns
    -------
    Engine

    Raises
    ------
    CheckpointError
        If there is no such folder, or no whole model in it.
    """
    require_run_folder(folder)
    if (folder / "model.onnx").is_file():
        from glomerulab.inference.engines.onnx_engine import OnnxEngine

        return OnnxEngine(folder)
    from glomerulab.inference.engines.torch_engine import TorchEngine

    return TorchEngine(folder)


def stacked(images: Sequence[RgbImage], input_size: int) -> npt.NDArray[np.uint8]:
    """Return images as one batch of squares.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (H, W, 3)
        Of any sizes, at least one.
    input_size : int

    Returns
    -------
    ndarray of uint8, shape (B, input_size, input_size, 3)
    """
    return np.stack([resized(image, input_size, input_size) for image in images])


def probabilities_of(logits: npt.NDArray[np.floating], head: Head) -> FloatArray:
    """Turn logits into probabilities, shape (B, K), without torch.

    Parameters
    ----------
    logits : ndarray of float, shape (B, K)
    head : {"softmax", "sigmoid"}

    Returns
    -------
    ndarray of float64, shape (B, K)
        From 0 to 1; under softmax each row sums to 1.
    """
    exact = logits.astype(np.float64)
    found: FloatArray = softmax(exact, axis=1) if head == "softmax" else expit(exact)
    return found
