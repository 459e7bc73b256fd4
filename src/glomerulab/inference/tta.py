"""Test-time augmentation: the mean probability over the eight symmetries of the square.

A section has no natural orientation, so a prediction should not depend on how it lies on the slide.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from glomerulab.inference.engines.base import Engine, ModelOutput, probabilities_of
from glomerulab.models.card import ModelCard

__all__ = ["TTA_MARK", "TtaEngine"]

TTA_MARK = "symmetries"
"""Distinguishes cached predictions with test-time augmentation from those without."""
MIN_PROBABILITY = 1e-7
"""Keeps the logit of a probability finite in float32."""


class TtaEngine:
    """An engine whose probabilities are means over the eight symmetries of each image."""

    card: ModelCard
    weights_sha256: str
    max_concurrency: int
    is_gpu: bool

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.card = engine.card
        self.weights_sha256 = engine.weights_sha256
        self.max_concurrency = engine.max_concurrency
        self.is_gpu = engine.is_gpu

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Return logits of the mean probabilities, and features of the images as they are.

        The out-of-distribution detector was fitted on features of such images.
        """
        outputs = [self._engine.predict(one) for one in _symmetries(images)]
        head = self.card.head
        means = np.mean([probabilities_of(one.logits, head) for one in outputs], axis=0)
        clipped = np.clip(means, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        logits = np.log(clipped) if head == "softmax" else logit(clipped)
        return ModelOutput(logits.astype(np.float32), outputs[0].features)


def _symmetries(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return a batch in every quarter turn, and each mirrored; the first as it is."""
    turns = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    return [np.ascontiguousarray(one) for turn in turns for one in (turn, turn[:, :, ::-1])]
