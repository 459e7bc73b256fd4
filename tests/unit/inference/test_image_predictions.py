import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from glomerulab.cohort.manifest import Manifest, manifest_from_rows, read_manifest
from glomerulab.errors import ImageFileError, TaxonomyError
from glomerulab.images import read_image, write_image
from glomerulab.inference.calibration import read_calibration
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.image_predictions import (
    CACHE_FILE,
    ModelInput,
    model_input,
    predict_batch,
    predict_images,
    predict_manifest,
    sharpness,
)
from glomerulab.inference.model import load_model
from glomerulab.models.layers import find_classifier
from glomerulab.models.registry import create_model
from glomerulab.taxonomy import load_taxonomy
from tests.support.known_networks import write_small_checkpoint


class Counting:
    """An engine that counts its images."""

    def __init__(self, engine) -> None:
        self.engine, self.n_images = engine, 0
        self.card, self.weights_sha256 = engine.card, engine.weights_sha256
        self.max_concurrency = engine.max_concurrency
        self.is_gpu = engine.is_gpu

    def predict(self, images):
        self.n_images += len(images)
        return self.engine.predict(images)


@pytest.fixture
def manifest(own_run: Path) -> Manifest:
    full = read_manifest(own_run / "manifest.csv")
    return full.with_table(full.table.iloc[:20])


def test_only_new_and_changed_images_are_predicted_again(own_run, manifest, tmp_path) -> None:
    engine, calibration = Counting(open_engine(own_run)), read_calibration(own_run)
    first, _ = predict_images(manifest, engine, calibration, tmp_path)
    second, _ = predict_images(manifest, engine, calibration, tmp_path)
    assert engine.n_images == 20
    assert first == second
    changed = manifest.image_paths()[3]
    changed.write_bytes(manifest.image_paths()[4].read_bytes())
    predict_images(manifest, engine, calibration, tmp_path)
    assert engine.n_images == 21


def test_an_incomplete_cache_line_is_predicted_again(own_run, manifest, tmp_path) -> None:
    engine, calibration = Counting(open_engine(own_run)), read_calibration(own_run)
    full, _ = predict_images(manifest, engine, calibration, tmp_path)
    path = tmp_path / CACHE_FILE
    path.write_text(path.read_text()[:-40])
    again, _ = predict_images(manifest, engine, calibration, tmp_path)
    assert engine.n_images == 21
    assert again.keys() == full.keys()
    third, _ = predict_images(manifest, engine, calibration, tmp_path)
    assert engine.n_images == 21
    assert third.keys() == full.keys()


def test_an_unreadable_image_is_reported_and_the_others_predicted(
    own_run, manifest, tmp_path
) -> None:
    manifest.image_paths()[2].write_bytes(b"no image")
    answers, failures = predict_images(
        manifest, open_engine(own_run), read_calibration(own_run), tmp_path
    )
    assert len(answers) == 19
    assert list(failures) == ["i2"]
    assert "not an image" in failures["i2"]


class Broken(Counting):
    """An engine whose logits for the first and the seventeenth image are NaN."""

    def predict(self, images):
        answers = super().predict(images)
        if self.n_images in {1, 17}:
            answers.logits[0, 1] = np.nan
        return answers


def test_logits_that_are_not_finite_are_failures_also_from_the_cache(
    own_run, manifest, tmp_path
) -> None:
    engine, calibration = Broken(open_engine(own_run)), read_calibration(own_run)
    for _ in range(2):
        answers, failures = predict_images(manifest, engine, calibration, tmp_path)
        assert list(failures) == ["i0", "i16"]
        assert "not a finite number" in failures["i0"]
        assert len(answers) == 18
    assert engine.n_images == 20


def test_an_image_in_memory_is_predicted_like_its_file(own_run, manifest, tmp_path) -> None:
    engine, calibration = open_engine(own_run), read_calibration(own_run)
    from_files, _ = predict_images(manifest, engine, calibration, tmp_path)
    images = [read_image(path) for path in manifest.image_paths()]
    mpps = manifest.table["mpp"]
    shown = [model_input(engine.card, image, mpp) for image, mpp in zip(images, mpps, strict=True)]
    found = predict_batch(shown, engine, calibration)
    for image_id, finding in zip(manifest.table["image_id"], found, strict=True):
        answer = from_files[image_id]
        assert finding.logits == pytest.approx(answer.logits, abs=1e-4)
        assert finding.distance == pytest.approx(answer.distance, rel=1e-4)
        assert finding.sharpness == answer.sharpness


def test_memory_stays_bounded_for_a_scale_far_from_that_of_the_model(own_run) -> None:
    card = read_calibration(own_run) and open_engine(own_run).card.model_copy(update={"mpp": 0.5})
    picture = np.random.default_rng(1).integers(0, 255, (400, 3000, 3), dtype=np.uint8)
    tracemalloc.start()
    shown = model_input(card, picture, 100.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.2e9  # the full image would be 80,000 by 600,000 pixels
    assert shown.sharpness < model_input(card, picture, 0.5).sharpness


PAPER = load_taxonomy("paper")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained network whose output is fixed by its seed."""
    return write_small_checkpoint(tmp_path / "run", head="sigmoid")


@pytest.fixture
def crops(tmp_path: Path, rng: np.random.Generator):
    rows = []
    for number in range(7):
        image = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        write_image(image, tmp_path / f"{number}.png")
        rows.append({"image_id": f"i{number}", "image_path": f"{number}.png", "normal": 1})
    return manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=PAPER)


def _values(table):
    return table[[f"probability_{name}" for name in PAPER.label_ids]].to_numpy()


def test_batch_size_and_processes_do_not_change_predictions(checkpoint, crops):
    alone = predict_manifest(checkpoint, crops, batch_size=1)
    together = predict_manifest(checkpoint, crops, batch_size=3, n_workers=2)
    assert alone.table["image_id"].tolist() == crops.table["image_id"].tolist()
    assert together.table["image_id"].tolist() == alone.table["image_id"].tolist()
    np.testing.assert_allclose(_values(alone.table), _values(together.table), atol=1e-6)
    np.testing.assert_allclose(alone.features, together.features, atol=1e-5)
    assert alone.failures == ()


def test_features_and_the_classifier_give_the_probabilities(checkpoint, crops):
    found = predict_manifest(checkpoint, crops)
    layer = find_classifier(create_model("improved_seresnet_small", 4, seed=1))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    logits = found.features @ weight.T + bias
    np.testing.assert_allclose(_values(found.table), 1 / (1 + np.exp(-logits)), atol=1e-5)


def test_predict_manifest_reports_unreadable_images(checkpoint, crops, tmp_path):
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "5.png").unlink()
    found = predict_manifest(checkpoint, crops, batch_size=2)
    assert found.table["image_id"].tolist() == ["i0", "i1", "i3", "i4", "i6"]
    assert [outcome.item for outcome in found.failures] == ["i2", "i5"]
    assert "5.png" in str(found.failures[1].error)


def test_the_first_error_is_raised_if_no_image_can_be_read(checkpoint, crops, tmp_path):
    for path in tmp_path.glob("*.png"):
        path.unlink()
    with pytest.raises(ImageFileError, match=r"0\.png"):
        predict_manifest(checkpoint, crops)


def test_a_manifest_with_other_labels_is_refused(checkpoint, crops):
    other = load_taxonomy(Path("configs/taxonomies/glas.toml"))
    rows = crops.table[["image_id", "image_path"]]
    glas = manifest_from_rows(rows, folder=crops.folder, taxonomy=other)
    with pytest.raises(TaxonomyError, match="the model predicts normal, mspgn"):
        predict_manifest(checkpoint, glas)


def test_a_manifest_without_images_gives_an_empty_table(checkpoint, crops):
    found = predict_manifest(checkpoint, crops.with_table(crops.table.iloc[:0]))
    assert found.table.empty
    assert "probability_cgn" in found.table


def test_sharpness_falls_with_blur(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (64, 64, 3)).astype(float)
    found = [
        sharpness(gaussian_filter(image, (s, s, 0)).astype(np.uint8)) for s in (0, 0.5, 1, 2, 4)
    ]
    assert found == sorted(found, reverse=True)


def test_sharpness_does_not_depend_on_contrast(rng: np.random.Generator) -> None:
    image = gaussian_filter(rng.integers(0, 255, (64, 64, 3)).astype(float), (1, 1, 0))
    pale = 128 + (image - 128) * 0.5
    difference = sharpness(image.astype(np.uint8)) - sharpness(pale.astype(np.uint8))
    assert abs(difference) < 0.05


def test_the_sharpness_of_an_empty_field_is_finite(rng: np.random.Generator) -> None:
    assert np.isfinite(sharpness(np.full((8, 8, 3), 240, dtype=np.uint8)))


def test_images_pass_together_where_a_gpu_would_idle(trained: Path) -> None:
    model = load_model(trained)
    size = model.card.input_size
    rng = np.random.default_rng(0)
    batch = [
        ModelInput(rng.integers(0, 255, (size, size, 3), dtype=np.uint8), 0.0, ()) for _ in range(5)
    ]

    class Sizes:
        def __init__(self, *, is_gpu: bool) -> None:
            self.max_concurrency, self.is_gpu = 1, is_gpu
            self.sizes: list[int] = []

        def predict(self, images):
            self.sizes.append(len(images))
            return model.engine.predict(images)

    alone, together = Sizes(is_gpu=False), Sizes(is_gpu=True)
    found = [predict_batch(batch, engine, model.calibration) for engine in (alone, together)]
    assert (alone.sizes, together.sizes) == ([1] * 5, [5])
    for one, other in zip(*found, strict=True):
        assert one.logits == pytest.approx(other.logits, abs=1e-4)
