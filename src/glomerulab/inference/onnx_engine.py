"""An exported model, run by ONNX Runtime: the same answers without torch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from pydantic import ValidationError

from glomerulab.errors import CheckpointError
from glomerulab.inference.engine import Answers
from glomerulab.models.card import ModelCard

__all__ = ["CARD_FILE", "MODEL_FILE", "ExportCard", "OnnxEngine"]

MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"


class ExportCard(ModelCard):
    """The model's card, and which weights were exported."""

    weights_sha256: str


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
            self._session = onnxruntime.InferenceSession(
                folder / MODEL_FILE, providers=["CPUExecutionProvider"]
            )
        except OSError as error:
            raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise CheckpointError(f"{key}: {first['msg']}", where=str(path)) from error
        except Exception as error:  # ONNX Runtime's own errors have no common base
            raise CheckpointError(
                f"ONNX Runtime cannot load it: {str(error).splitlines()[0]}",
                where=str(folder / MODEL_FILE),
            ) from error

        self.card: ModelCard = card
        self.weights_sha256 = card.weights_sha256

    def answer(self, images: npt.NDArray[np.uint8]) -> Answers:
        """Answer a batch.

        Parameters
        ----------
        images : ndarray of uint8, shape (B, S, S, 3)

        Returns
        -------
        Answers
        """
        logits, features = self._session.run(["logits", "features"], {"images": images})
        return Answers(logits, features)
