"""The model of a running server: few threads ask it, crops that wait together go in together.

A crop is prepared by whoever brings it and comes out by the same functions as `glomerulab predict`
uses, so that both say the same of an image.
"""

import io
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from glomerulab.errors import CheckpointError
from glomerulab.explain.attribution import attribute, overlay_beside
from glomerulab.images import RgbImage, resized
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.decide import Decision, decide
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.image_predictions import (
    ImagePrediction,
    ModelInput,
    model_input,
    predict_batch,
)
from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.stain.normalize import normalize

__all__ = ["Overlays", "Predictor", "PreparedCrop", "decide_crop", "prepare_crop"]

log = logging.getLogger(__name__)

MAX_BATCH = 8
MAX_PICTURE_PX = 512


@dataclass(frozen=True, eq=False)
class PreparedCrop:
    """What is left of a crop once all that needs the whole of it is done."""

    shown: ModelInput
    stain: str | None
    stain_status: str | None
    """What became of it in normalisation; None where the run has no reference for its stain."""
    picture: RgbImage | None = None
    """A small copy in its own proportions, where one was asked for."""


def prepare_crop(
    image: RgbImage,
    card: ModelCard,
    calibration: ModelCalibration,
    *,
    stain: str | None,
    mpp: float | None,
    with_picture: bool = False,
) -> PreparedCrop:
    """Bring a crop to the run's stain reference and to the size of the network's input.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    stain : str or None
        As manifests call it; None where unknown, and then the crop keeps its colours.
    mpp : float or None
        Micrometres per pixel.
    with_picture : bool, default False
        Whether something will be drawn on it.
    """
    reference = None if stain is None else calibration.references.get(stain)
    status = None
    if reference is not None:
        found = normalize(image, reference)
        image, status = found.image, found.status.value
    picture = _fitting(image) if with_picture else None
    return PreparedCrop(model_input(card, image, mpp), stain, status, picture)


def _fitting(image: RgbImage) -> RgbImage:
    height, width = image.shape[:2]
    factor = min(1.0, MAX_PICTURE_PX / max(height, width))
    return resized(image, max(round(width * factor), 1), max(round(height * factor), 1))


def decide_crop(
    crop: PreparedCrop, finding: ImagePrediction, card: ModelCard, calibration: ModelCalibration
) -> Decision:
    """Turn what was found in a crop into the call."""
    (decision,) = decide(
        np.array([finding.logits]),
        [finding.distance],
        [finding.sharpness],
        stains=[crop.stain],
        stain_statuses=[crop.stain_status],
        calibration=calibration,
        taxonomy=card.taxonomy,
        head=card.head,
    )
    return decision


@dataclass(frozen=True, eq=False)
class _Waiting:
    crop: PreparedCrop
    answer: "Future[ImagePrediction]"


class Predictor:
    """Answers crops batch by batch, in as many threads as the engine takes at once.

    Parameters
    ----------
    engine : Engine
        From here on only this object's threads may use it.
    max_batch : int, default 8
        Crops that wait while a batch is answered make the next one, up to so many. An engine that
        answers several threads at once gains nothing by that: there each crop goes alone.
    on_batch : callable, optional
        Is told the size of each batch.

    Raises
    ------
    CheckpointError
        If the model does not answer as its card and gates say.
    """

    def __init__(
        self,
        engine: Engine,
        calibration: ModelCalibration,
        *,
        max_batch: int = MAX_BATCH,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        _refuse_mismatch(engine, calibration)
        self._engine = engine
        self._calibration = calibration
        self._max_batch = max_batch if engine.max_concurrency == 1 else 1
        self._on_batch = on_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"judge-{number}", daemon=True)
            for number in range(engine.max_concurrency)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether crops are being answered."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, crop: PreparedCrop) -> "Future[ImagePrediction]":
        """Queue a crop; whoever no longer waits cancels the future."""
        answer: Future[ImagePrediction] = Future()
        self._queue.put(_Waiting(crop, answer))
        return answer

    def close(self) -> None:
        """Answer what waits, then end."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if batch:
                self._on_batch(len(batch))
                self._answer(batch)

    def _next_batch(self) -> tuple[list[_Waiting], bool]:
        """Wait for one, and take with it whatever else waits already."""
        batch: list[_Waiting] = []
        one = self._queue.get()
        while one is not None:
            batch.append(one)
            if len(batch) == self._max_batch:
                return batch, True
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            found = predict_batch(
                [one.crop.shown for one in batch], self._engine, self._calibration
            )
        except Exception as error:  # noqa: BLE001 - it is given to whoever waits for the answer
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            log.warning("a batch of %d failed, each is tried alone: %r", len(batch), error)
            for one in batch:
                self._answer([one])
            return
        for one, finding in zip(batch, found, strict=True):
            one.answer.set_result(finding)


def _refuse_mismatch(engine: Engine, calibration: ModelCalibration) -> None:
    """Show the model one blank image: what does not fit together must not wait for a patient's."""
    size = engine.card.input_size
    answers = engine.predict(np.full((1, size, size, 3), 255, dtype=np.uint8))
    n_labels, n_features = len(engine.card.labels), calibration.ood.n_features
    if answers.logits.shape != (1, n_labels):
        raise CheckpointError(
            f"the model gives {answers.logits.shape[1]} answers, its card names {n_labels} labels"
        )
    if answers.features.shape != (1, n_features):
        raise CheckpointError(
            f"the model gives {answers.features.shape[1]} features, its gates were fitted on "
            f"{n_features}; run `glomerulab gates RUN` again"
        )


class Overlays:
    """A network of its own, since gradients need one that was not made ready for speed.

    Parameters
    ----------
    run : Path
        A run folder.
    """

    method = "grad-cam"
    """One pass back and forth; the other methods of `explain` take seconds."""

    def __init__(self, run: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, self._card = load_checkpoint(run)
        self._model = model.eval().to(self._device).to(memory_format=torch.channels_last)
        self._lock = threading.Lock()

    def draw(self, pixels: RgbImage, picture: RgbImage, label_id: str) -> bytes:
        """Draw a crop, and beside it what spoke for a label.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (S, S, 3)
            As the network was shown it.
        picture : ndarray of uint8, shape (H, W, 3)
            The same in its own proportions.

        Returns
        -------
        bytes
            A PNG of 2 W by H pixels.
        """
        card = self._card
        shown = torch.from_numpy(pixels).to(self._device).float() / 255.0  # (S, S, 3)
        tensor = ((shown - shown.new_tensor(card.mean)) / shown.new_tensor(card.std)).permute(
            2, 0, 1
        )
        target = card.taxonomy.label_ids.index(label_id)
        with self._lock:  # captum hangs hooks on the network
            saliency = attribute(self._model, tensor, target, "grad-cam").numpy()
        stream = io.BytesIO()
        drawn = Image.fromarray(overlay_beside(picture, saliency))
        drawn.save(stream, format="PNG", compress_level=1)
        return stream.getvalue()
