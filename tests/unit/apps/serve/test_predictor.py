import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glomerulab.apps.serve.predictor import Predictor
from glomerulab.errors import CheckpointError
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.base import ModelOutput
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.model import PreparedCrop, decide_crops, prepare_crop
from glomerulab.stain.fitting import fit
from tests.support.cases import picture


class Held:
    """An engine that waits for permission, and fails on images that are wholly black."""

    def __init__(self, engine) -> None:
        self.card, self.weights_sha256, self._engine = engine.card, engine.weights_sha256, engine
        self.max_concurrency = engine.max_concurrency
        self.is_gpu = engine.is_gpu
        self.may_go = threading.Event()
        self.may_go.set()

    def predict(self, images) -> ModelOutput:
        self.may_go.wait(30)
        if (images == 0).all(axis=(1, 2, 3)).any():
            raise RuntimeError("black")
        return self._engine.predict(images)


@pytest.fixture
def engine(trained: Path) -> Held:
    return Held(open_engine(trained))


def crop(engine, calibration, label="cgn", seed=0) -> PreparedCrop:
    image = picture(np.random.default_rng(seed), label)
    return prepare_crop(image, engine.card, calibration, stain="PAS", mpp=0.5)


def test_waiting_crops_are_predicted_in_one_batch_with_equal_results(trained, engine):
    calibration, sizes = read_calibration(trained), []
    predictor = Predictor(engine, calibration, max_batch=4, on_batch=sizes.append)
    crops = [crop(engine, calibration, seed=seed) for seed in range(9)]
    alone = [predictor.submit(one).result(30) for one in crops]
    engine.may_go.clear()
    futures = [predictor.submit(one) for one in crops]
    engine.may_go.set()
    together = [future.result(30) for future in futures]
    predictor.close()
    assert sizes[:9] == [1] * 9
    assert sum(sizes[9:]) == 9
    assert max(sizes) == 4
    for one, other in zip(alone, together, strict=True):
        assert one.logits == pytest.approx(other.logits, abs=1e-4)
        assert one.sharpness == other.sharpness


def test_a_thread_safe_engine_is_called_by_two_threads(trained, engine):
    calibration, sizes = read_calibration(trained), []
    both, one_by_one = threading.Barrier(2), threading.Lock()

    class Two(Held):
        def predict(self, images) -> ModelOutput:
            if images.min() < 255:  # not the blank image of the warm-up
                both.wait(30)
            with one_by_one:  # torch below is one for all
                return super().predict(images)

    crops = [crop(engine, calibration, seed=seed) for seed in range(4)]
    alone = Predictor(engine, calibration)
    expected = [alone.submit(one).result(30) for one in crops]
    two = Two(engine)
    two.max_concurrency = 2
    predictor = Predictor(two, calibration, on_batch=sizes.append)
    futures = [predictor.submit(one) for one in crops]
    for future, other in zip(futures, expected, strict=True):
        assert future.result(30).logits == pytest.approx(other.logits, abs=1e-4)
    predictor.close()
    assert sizes == [1] * 4
    assert not predictor.is_alive


def test_an_image_that_breaks_the_network_fails_alone(trained, engine):
    calibration = read_calibration(trained)
    predictor = Predictor(engine, calibration)
    bad = prepare_crop(
        np.zeros((48, 48, 3), np.uint8), engine.card, calibration, stain="PAS", mpp=0.5
    )
    engine.may_go.clear()
    first = predictor.submit(crop(engine, calibration))
    futures = [
        predictor.submit(one) for one in (crop(engine, calibration), bad, crop(engine, calibration))
    ]
    engine.may_go.set()
    assert first.result(30).logits == futures[0].result(30).logits
    assert futures[2].result(30).logits
    with pytest.raises(RuntimeError, match="black"):
        futures[1].result(30)
    assert predictor.is_alive
    predictor.close()
    assert not predictor.is_alive


def test_a_crop_of_a_disconnected_client_is_not_predicted(trained, engine):
    calibration, sizes = read_calibration(trained), []
    predictor = Predictor(engine, calibration, on_batch=sizes.append)
    engine.may_go.clear()
    first = predictor.submit(crop(engine, calibration))
    while not first.running():
        pass
    given_up = predictor.submit(crop(engine, calibration))
    assert given_up.cancel()
    engine.may_go.set()
    first.result(30)
    predictor.close()
    assert sizes == [1]


def test_a_model_whose_output_contradicts_its_card_is_rejected(trained):
    calibration = read_calibration(trained)
    other = open_engine(trained)
    other.card = other.card.model_copy(update={"labels": other.card.labels[:3]})
    with pytest.raises(CheckpointError, match="4 outputs, but its card names 3 labels"):
        Predictor(other, calibration)
    ood = replace(calibration.ood, class_means=calibration.ood.class_means[:, :5])
    narrow = replace(calibration, ood=ood)
    with pytest.raises(CheckpointError, match="fitted on 5"):
        Predictor(open_engine(trained), narrow)


def test_a_crop_of_a_stain_with_a_reference_takes_its_colours(trained, two_stains):
    engine, calibration = open_engine(trained), read_calibration(trained)
    calibration = replace(calibration, references={"HE": fit(two_stains, "HE")})
    own = prepare_crop(two_stains // 2 + 100, engine.card, calibration, stain="HE", mpp=None)
    assert own.stain_status == "normalized"
    assert (
        prepare_crop(two_stains, engine.card, calibration, stain="PAS", mpp=None).stain_status
        is None
    )
    glass = np.full((64, 64, 3), 244, np.uint8)
    blank = prepare_crop(glass, engine.card, calibration, stain="HE", mpp=None)
    assert blank.stain_status == "constant"
    prediction = Predictor(engine, calibration).submit(blank).result(30)
    assert "no_tissue" in decide_crops([blank], [prediction], engine.card, calibration)[0].reasons


@pytest.fixture
def two_stains() -> np.ndarray:
    """Pixels of two stains in any amounts, by Beer-Lambert (synthetic)."""
    rng = np.random.default_rng(4)
    amounts = rng.uniform(0.2, 1.2, (96, 96, 2))
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    return np.clip(245 * np.exp(-(amounts @ stains)), 0, 255).astype(np.uint8)


def test_a_picture_to_draw_on_is_small_and_keeps_its_proportions(trained):
    engine, calibration = open_engine(trained), read_calibration(trained)
    image = np.zeros((300, 1024, 3), np.uint8)
    assert prepare_crop(image, engine.card, calibration, stain=None, mpp=None).picture is None
    kept = prepare_crop(image, engine.card, calibration, stain=None, mpp=None, with_picture=True)
    assert kept.picture.shape == (150, 512, 3)
