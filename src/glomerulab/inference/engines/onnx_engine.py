"""Run an exported model with ONNX Runtime, without torch."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.errors import CheckpointError
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.inference.engines.base import ModelOutput
from glomerulab.models.card import ModelCard
from glomerulab.runtime.messages import first_problem
from glomerulab.runtime.sealing import SealedFolder

Precision = Literal["float32", "int8"]

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
EXTERNAL_WEIGHTS = "session.model_external_initializers_file_folder_path"


class QuantizationLoss(BaseModel):
    """What quantisation to 8-bit integers changes on held-out images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_images: int
    n_calls_changed: int
    n_right_float32: int
    """Images with every known label called correctly, in float32."""
    n_right: int
    """The same, in 8-bit integers."""
    largest_difference: float
    """Of a probability, before the temperature."""
    mean_difference: float

    @property
    def text(self) -> str:
        """The loss as part of an English sentence."""
        return self._text("en")

    @property
    def text_zh(self) -> str:
        """The loss as part of a Chinese sentence."""
        return self._text("zh")

    def _text(self, language: Language) -> str:
        return translate(
            "of {n_images} held-out images {n_calls_changed} changed their call, {n_right} instead "
            "of {n_right_float32} are right, and probabilities differ by {largest_difference:.2g} "
            "at most, by {mean_difference:.1g} on average",
            language,
            **self.model_dump(),
        )


class ExportCard(ModelCard):
    """The card of an exported model."""

    weights_sha256: str
    precision: Precision = "float32"
    loss: QuantizationLoss | None = None
    """Of int8, measured during the export."""


class OnnxEngine:
    """An exported model on the CPU."""

    def __init__(self, folder: Path | SealedFolder) -> None:
        files = SealedFolder.of(folder)
        facts = files.read_card(CARD_FILE)
        network, _ = files.read(MODEL_FILE)
        try:
            card = ExportCard.model_validate(facts)
            self._session = ParallelSession(network)
        except ValidationError as error:
            where = str(files.folder / CARD_FILE)
            raise CheckpointError(first_problem(error), where=where) from error
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise CheckpointError(
                f"ONNX Runtime cannot load the model: {str(error).splitlines()[0]}",
                where=str(files.folder / MODEL_FILE),
            ) from error

        self.card: ModelCard = card
        self.weights_sha256 = card.weights_sha256
        self.max_concurrency = self._session.n_threads
        self.is_gpu = False

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run the network on a batch, shape (B, S, S, 3)."""
        return self._session.predict(images)


class ParallelSession:
    """An ONNX model that splits each batch over the cores, one thread per part.

    Notes
    -----
    This is about a sixth faster than all cores for each layer of the whole batch: no layer waits
    for its slowest thread.
    """

    def __init__(self, network: bytes) -> None:
        options = onnxruntime.SessionOptions()
        # Weights in other files, which no export has, would be read from the working folder.
        options.add_session_config_entry(EXTERNAL_WEIGHTS, os.devnull)
        options.intra_op_num_threads = 1  # each call runs in the thread that makes it
        self._session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
        self.n_threads = len(os.sched_getaffinity(0))
        self._threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="onnx")

    def predict(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        """Run the network on a batch of at least one image, shape (B, S, S, 3)."""
        if len(images) == 1:
            return self._run(images)
        parts = np.array_split(images, min(self.n_threads, len(images)))
        outputs = list(self._threads.map(self._run, parts))
        return ModelOutput(
            np.concatenate([one.logits for one in outputs]),
            np.concatenate([one.features for one in outputs]),
        )

    def _run(self, images: npt.NDArray[np.uint8]) -> ModelOutput:
        return ModelOutput(*self._session.run(["logits", "features"], {"images": images}))
