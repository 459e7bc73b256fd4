import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.images import read_image
from glomerulab.inference.calibration import read_gates
from glomerulab.inference.engines.base import open_engine
from glomerulab.inference.image_predictions import (
    ANSWERS_FILE,
    answer_manifest,
    answer_shown,
    shown_to,
)


class Counting:
    """An engine that counts how many images it was shown."""

    def __init__(self, engine) -> None:
        self.engine, self.n_images = engine, 0
        self.card, self.weights_sha256 = engine.card, engine.weights_sha256

    def answer(self, images):
        self.n_images += len(images)
        return self.engine.answer(images)


@pytest.fixture
def manifest(own_run: Path) -> Manifest:
    whole = read_manifest(own_run / "manifest.csv")
    return whole.with_table(whole.table.iloc[:20])


def test_a_second_run_answers_only_what_is_new_or_changed(own_run, manifest, tmp_path) -> None:
    engine, gates = Counting(open_engine(own_run)), read_gates(own_run)
    first, _ = answer_manifest(manifest, engine, gates, tmp_path)
    second, _ = answer_manifest(manifest, engine, gates, tmp_path)
    assert engine.n_images == 20
    assert first == second
    changed = manifest.image_paths()[3]
    changed.write_bytes(manifest.image_paths()[4].read_bytes())
    answer_manifest(manifest, engine, gates, tmp_path)
    assert engine.n_images == 21


def test_the_line_a_killed_run_was_writing_is_made_again(own_run, manifest, tmp_path) -> None:
    engine, gates = Counting(open_engine(own_run)), read_gates(own_run)
    whole, _ = answer_manifest(manifest, engine, gates, tmp_path)
    path = tmp_path / ANSWERS_FILE
    path.write_text(path.read_text()[:-40])
    again, _ = answer_manifest(manifest, engine, gates, tmp_path)
    assert engine.n_images == 21
    assert again.keys() == whole.keys()
    third, _ = answer_manifest(manifest, engine, gates, tmp_path)
    assert engine.n_images == 21
    assert third.keys() == whole.keys()


def test_an_unreadable_image_is_a_failure_and_stops_nothing(own_run, manifest, tmp_path) -> None:
    manifest.image_paths()[2].write_bytes(b"no image")
    answers, failures = answer_manifest(
        manifest, open_engine(own_run), read_gates(own_run), tmp_path
    )
    assert len(answers) == 19
    assert list(failures) == ["i2"]
    assert "not an image" in failures["i2"]


class Broken(Counting):
    """An engine whose answer to the first image of each batch is no number."""

    def answer(self, images):
        answers = super().answer(images)
        answers.logits[0, 1] = np.nan
        return answers


def test_an_answer_that_is_no_number_is_a_failure_now_and_when_resumed(
    own_run, manifest, tmp_path
) -> None:
    engine, gates = Broken(open_engine(own_run)), read_gates(own_run)
    for _ in range(2):
        answers, failures = answer_manifest(manifest, engine, gates, tmp_path)
        assert list(failures) == ["i0", "i16"]
        assert "not a finite number" in failures["i0"]
        assert len(answers) == 18
    assert engine.n_images == 20


def test_an_image_in_memory_is_answered_like_its_file(own_run, manifest, tmp_path) -> None:
    engine, gates = open_engine(own_run), read_gates(own_run)
    from_files, _ = answer_manifest(manifest, engine, gates, tmp_path)
    images = [read_image(path) for path in manifest.image_paths()]
    mpps = manifest.table["mpp"]
    shown = [shown_to(engine.card, image, mpp) for image, mpp in zip(images, mpps, strict=True)]
    found = answer_shown(shown, engine, gates)
    for image_id, finding in zip(manifest.table["image_id"], found, strict=True):
        answer = from_files[image_id]
        assert finding.logits == pytest.approx(answer.logits, abs=1e-4)
        assert finding.distance == pytest.approx(answer.distance, rel=1e-4)
        assert finding.sharpness == answer.sharpness


def test_a_scale_far_from_the_models_takes_no_more_memory_than_a_large_crop(own_run) -> None:
    card = read_gates(own_run) and open_engine(own_run).card.model_copy(update={"mpp": 0.5})
    picture = np.random.default_rng(1).integers(0, 255, (400, 3000, 3), dtype=np.uint8)
    tracemalloc.start()
    shown = shown_to(card, picture, 100.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2e9  # whole, it would be 80,000 by 600,000 pixels
    assert shown.sharpness < shown_to(card, picture, 0.5).sharpness
