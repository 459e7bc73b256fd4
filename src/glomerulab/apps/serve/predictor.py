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
from glomerulab.inference.calibration import ModelCalibration
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.image_predictions import (
    ImagePrediction,
    predict_batch,
)
from glomerulab.inference.model import PreparedCrop

log = logging.getLogger(__name__)

MAX_BATCH = 8


@dataclass(frozen=True, eq=False)
class _Waiting:
    crop: PreparedCrop
    future: "Future[ImagePrediction]"


class Predictor:
    """Run crops in batches, on as many threads as the engine supports."""

    def __init__(
        self,
        engine: Engine,
        calibration: ModelCalibration,
        *,
        max_batch: int = MAX_BATCH,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        _check_output(engine, calibration)
        self._engine = engine
        self._calibration = calibration
        self._max_batch = max_batch if engine.max_concurrency == 1 else 1
        self._on_batch = on_batch
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"predictor-{number}", daemon=True)
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
        future: Future[ImagePrediction] = Future()
        self._queue.put(_Waiting(crop, future))
        return future

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
            batch = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if batch:
                self._on_batch(len(batch))
                self._predict(batch)

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

    def _predict(self, batch: Sequence[_Waiting]) -> None:
        try:
            predictions = predict_batch(
                [one.crop.model_input for one in batch], self._engine, self._calibration
            )
        except Exception as error:  # noqa: BLE001 - passed on to the waiting request
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            log.warning("a batch of %d failed, each crop is retried: %r", len(batch), error)
            for one in batch:
                self._predict([one])
            return
        for one, prediction in zip(batch, predictions, strict=True):
            one.future.set_result(prediction)


def _check_output(engine: Engine, calibration: ModelCalibration) -> None:
    """Run one blank image, so that a mismatch shows before the first request."""
    size = engine.card.input_size
    output = engine.predict(np.full((1, size, size, 3), 255, dtype=np.uint8))
    n_labels, n_features = len(engine.card.labels), calibration.ood.n_features
    if output.logits.shape != (1, n_labels):
        raise CheckpointError(
            f"the model has {output.logits.shape[1]} outputs, but its card names {n_labels} "
            "labels; export or train it again"
        )
    if output.features.shape != (1, n_features):
        raise CheckpointError(
            f"the model has {output.features.shape[1]} features, but its calibration was fitted on "
            f"{n_features}; run `glomerulab gates RUN` again"
        )
