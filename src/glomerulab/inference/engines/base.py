"""The interface of the inference engines; without torch.

An engine is a run folder run by torch, or an exported folder run by ONNX Runtime. Both get the same
bytes, so that their outputs differ by rounding alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from glomerulab.images import RgbImage, resized
from glomerulab.models.card import ModelCard
from glomerulab.predictions import Head

__all__ = ["Engine", "ModelOutput", "probabilities_of"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelOutput:
    """The output of a network for a batch."""

    logits: npt.NDArray[np.float32]
    """Shape (B, K)."""
    features: npt.NDArray[np.float32]
    """Shape (B, D): the mean of each map of every stage, the first stage first; for networks of
    tokens, the vector that the classifier reads comes last."""


class Engine(Protocol):
    """A trained network and its card."""

    card: ModelCard
    weights_sha256: str
    max_concurrency: int
    """Number of threads that may call `predict` at the same time, for the highest throughput."""
    is_gpu: bool
    """Whether single images would leave a GPU idle."""

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run the network on a batch, shape (B, S, S, 3), S being ``card.input_size``."""
        ...


def stack_images(images: Sequence[RgbImage], input_size: int) -> npt.NDArray[np.uint8]:
    """Resize at least one image to squares and stack them, shape (B, input_size, input_size, 3)."""
    return np.stack([resized(image, input_size, input_size) for image in images])


def probabilities_of(logits: npt.NDArray[np.floating], head: Head) -> FloatArray:
    """Turn logits into probabilities, without torch.

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
