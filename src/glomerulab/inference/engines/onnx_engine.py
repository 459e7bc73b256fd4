"""An exported model, run by ONNX Runtime: the same answers without torch."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.errors import CheckpointError
from glomerulab.inference.engines.base import Answers
from glomerulab.models.card import ModelCard
from glomerulab.runtime.messages import first_problem

__all__ = [
    "CARD_FILE",
    "MODEL_FILE",
    "DealtSession",
    "ExportCard",
    "IntegerLoss",
    "OnnxEngine",
    "Precision",
]

Precision = Literal["float32", "int8"]

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"


class IntegerLoss(BaseModel):
    """What 8-bit integers changed in the answers to held-out images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_images: int
    n_calls_changed: int
    n_right_float32: int
    """Images of which every known label is called rightly."""
    n_right: int
    """The same, in 8-bit integers."""
    largest_difference: float
    """Of a probability, before the temperature."""
    mean_difference: float

    @property
    def text(self) -> str:
        """One sentence for a person."""
        return (
            f"of {self.n_images} held-out images {self.n_calls_changed} changed their call, "
            f"{self.n_right} instead of {self.n_right_float32} are right, and probabilities differ "
            f"by {self.largest_difference:.2g} at most, by {self.mean_difference:.1g} on average"
        )

    @property
    def text_zh(self) -> str:
        """The same in Chinese."""
        return (
            f"{self.n_images} 幅留出图像中 {self.n_calls_changed} 幅的判定改变，"
            f"正确数由 {self.n_right_float32} 变为 {self.n_right}，概率最多相差 "
            f"{self.largest_difference:.2g}，平均相差 {self.mean_difference:.1g}"
        )


class ExportCard(ModelCard):
    """The model's card, which weights were exported, and how exactly they are computed."""

    weights_sha256: str
    precision: Precision = "float32"
    loss: IntegerLoss | None = None
    """Of int8, measured when it was exported."""


class OnnxEngine:
    """An exported network on the CPU.

    Parameters
    ----------
    folder : Path
        As ``export`` wrote it: ``model.onnx``, ``card.json``, ``gates/``.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / CARD_FILE
        try:
            card = ExportCard.model_validate_json(path.read_text(encoding="utf-8"))
            self._session = DealtSession(folder / MODEL_FILE)
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
        except ValidationError as error:
            raise CheckpointError(first_problem(error), where=str(path)) from error
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise CheckpointError(
                f"ONNX Runtime cannot load it: {str(error).splitlines()[0]}",
                where=str(folder / MODEL_FILE),
            ) from error

        self.card: ModelCard = card
        self.weights_sha256 = card.weights_sha256
        self.n_at_once = self._session.n_threads

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Answer a batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (B, S, S, 3)

        Returns
        -------
        Answers
        """
        return self._session.answer(images)


class DealtSession:
    """An ONNX file, run by one thread for each part of a batch.

    Parameters
    ----------
    path : Path
        As ``export`` wrote it.

    Notes
    -----
    A core for each part of a batch is about a sixth faster than all cores for each layer of it: no
    layer waits for its slowest thread.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a call runs in the thread that makes it
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.n_threads = len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="onnx")

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Answer a batch of at least one, shape (B, S, S, 3)."""
        if len(images) == 1:
            return self._part(images)
        parts = np.array_split(images, min(self.n_threads, len(images)))
        answers = list(self._threads.map(self._part, parts))
        return Answers(
            np.concatenate([one.logits for one in answers]),
            np.concatenate([one.features for one in answers]),
        )

    def _part(self, images: npt.NDArray[np.uint8]) -> Answers:
        return Answers(*self._session.run(["logits", "features"], {"images": images}))
