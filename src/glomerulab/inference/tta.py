"""Test-time augmentation: an image is judged in all eight ways it can lie on the glass.

A section has no up and no left, so an answer that changes when the slide is turned is an answer of
chance; the mean over the eight symmetries of the square does not change.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from glomerulab.inference.engines.base import Answers, Engine, probabilities_of
from glomerulab.models.card import ModelCard

__all__ = ["MARK", "SymmetricEngine"]

MARK = "symmetries"
LEAST = 1e-7
"""Of a probability, so that its logit is finite in float32."""


class SymmetricEngine:
    """An engine that gives the mean probability over the eight symmetries.

    Parameters
    ----------
    engine : Engine
    """

    card: ModelCard
    weights_sha256: str
    n_at_once: int

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.card = engine.card
        self.weights_sha256 = engine.weights_sha256
        self.n_at_once = engine.n_at_once

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Answer a batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (B, S, S, 3)

        Returns
        -------
        Answers
            Logits whose probabilities are the means; features of the image as it is, since the
            distance gate was fitted on such.
        """
        answers = [self._engine.answer(turned) for turned in _turned(images)]
        head = self.card.head
        means = np.mean([probabilities_of(one.logits, head) for one in answers], axis=0)
        safe = np.clip(means, LEAST, 1 - LEAST)
        logits = np.log(safe) if head == "softmax" else logit(safe)
        return Answers(logits.astype(np.float32), answers[0].features)


def _turned(images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return the batch in every quarter turn, and each mirrored; the first as it is."""
    turns = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    return [np.ascontiguousarray(one) for turn in turns for one in (turn, turn[:, :, ::-1])]
