"""The model of a running server: a few threads run it on batches of waiting crops.

The functions are those of `glomerulab predict`, so that both give the same call for an image.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from glomerulab.errors import CheckpointError
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
from glomerulab.stain.normalize import normalize

__all__ = ["Predictor", "PreparedCrop", "decide_crop", "prepare_crop"]

log = logging.getLogger(__name__)

MAX_BATCH = 8
MAX_PICTURE_PX = 512


@dataclass(frozen=True, eq=False)
class PreparedCrop:
    """A crop after decoding, normalisation and resizing."""

    shown: ModelInput
    stain: str | None
    stain_status: str | None
    """Status of the normalisation; None if the run has no reference for the stain."""
    picture: RgbImage | None = None
    """A small copy with the crop's aspect ratio, for an overlay."""


def prepare_crop(
    image: RgbImage,
    card: ModelCard,
    calibration: ModelCalibration,
    *,
    stain: str | None,
    mpp: float | None,
    with_picture: bool = False,
) -> PreparedCrop:
    """Normalise a crop to the run's stain reference and resize it to the network's input.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    stain : str or None
        As in manifests; None if unknown, which leaves the colours unchanged.
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
    """Return the call of a crop."""
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
    """Run crops in batches, on as many threads as the engine supports.

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
        """Whether all threads are running."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, crop: PreparedCrop) -> "Future[ImagePrediction]":
        """Queue a crop; cancel the future to drop it."""
        answer: Future[ImagePrediction] = Future()
        self._queue.put(_Waiting(crop, answer))
        return answer

    def close(self) -> None:
        """Process the queue, then stop."""
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
        """Wait for one crop, and add those that are already waiting."""
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
        except Exception as error:  # noqa: BLE001 - passed on to the waiting request
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            log.warning("a batch of %d failed, each crop is retried: %r", len(batch), error)
            for one in batch:
                self._answer([one])
            return
        for one, finding in zip(batch, found, strict=True):
            one.answer.set_result(finding)


def _refuse_mismatch(engine: Engine, calibration: ModelCalibration) -> None:
    """Run one blank image, so that a mismatch shows before the first request."""
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
