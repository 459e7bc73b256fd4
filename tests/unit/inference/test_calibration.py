import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import CheckpointError, RunError
from glomerulab.images import read_image
from glomerulab.inference.calibration import (
    has_calibration,
    model_facts,
    read_calibration,
    write_calibration,
)
from glomerulab.inference.engines.base import stack_images
from glomerulab.inference.engines.open import open_engine
from glomerulab.inference.fit_calibration import fit_calibration
from glomerulab.inference.ood import MahalanobisDetector
from glomerulab.predictions import read_predictions
from glomerulab.runtime.sealing import write_seal


def test_the_distance_is_mahalanobis_to_the_nearest_class(rng: np.random.Generator) -> None:
    root = rng.normal(size=(5, 5))
    precision = root @ root.T + np.eye(5)
    means = rng.normal(size=(3, 5)).astype(np.float32)
    rows = rng.normal(size=(7, 5)).astype(np.float32)
    whitening = np.linalg.cholesky(precision).astype(np.float32)
    found = MahalanobisDetector(means, whitening).distances(rows)
    expected = [min(mahalanobis(row, mean, precision) for mean in means) for row in rows]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_calibration_reads_back_as_written(trained: Path, tmp_path: Path) -> None:
    calibration = read_calibration(trained)
    write_calibration(calibration, tmp_path)
    again = read_calibration(tmp_path)
    assert has_calibration(tmp_path)
    assert again.facts == calibration.facts
    assert np.array_equal(again.ood.whitening, calibration.ood.whitening)
    assert again.fingerprint == calibration.fingerprint


def test_an_altered_calibration_is_refused(own_run: Path) -> None:
    path = next((own_run / "gates").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunError, match="SHA-256"):
        read_calibration(own_run)
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_calibration(own_run)


def test_a_calibration_of_an_older_version_is_refused_with_the_command(own_run: Path) -> None:
    path = own_run / "gates" / "gates.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="glomerulab gates RUN"):
        read_calibration(own_run)


def test_calibration_facts_describe_the_training_images(trained: Path) -> None:
    facts = read_calibration(trained).facts
    assert facts.n_training_images == 48
    assert facts.n_training_patients == 12
    assert facts.stains_seen == {"PAS": 48}
    assert facts.n_validation == 24
    assert facts.trained_on_synthetic
    assert "of 12 held-out images right" in facts.test_summary


def test_the_distance_threshold_passes_its_share_of_validation(trained: Path) -> None:
    calibration, engine = read_calibration(trained), open_engine(trained)
    manifest = read_manifest(trained / "manifest.csv")
    inside = (manifest.table["split"] == "validation").to_numpy(dtype=bool)
    images = [read_image(p) for p, k in zip(manifest.image_paths(), inside, strict=True) if k]
    far = calibration.distances(engine.predict(stack_images(images, 32)).features)
    assert (far <= calibration.facts.distance_threshold + 1e-6).sum() == 24  # ceil(25 x 0.95) of 24


def test_distances_are_mahalanobis_in_features_of_one_scale(rng: np.random.Generator) -> None:
    features = rng.normal(size=(60, 6)) @ np.diag([1e-3, 1, 10, 1, 0.1, 5]) + 3
    labels = np.eye(2)[np.arange(60) % 2]
    detector = MahalanobisDetector.fit(features.astype(np.float32), labels, where="run")
    centres = np.stack([features[k::2].mean(axis=0) for k in range(2)])
    inside = features - centres[np.arange(60) % 2]
    scale = inside.std(axis=0)
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(inside / scale).covariance_)
    expected = [
        min(mahalanobis(row / scale, centre / scale, precision) for centre in centres)
        for row in features
    ]
    # Classes are in the order of their label rows.
    assert sorted(detector.class_means[:, 2].tolist()) == pytest.approx(
        sorted(centres[:, 2].tolist()), rel=1e-4
    )
    found = detector.distances(features.astype(np.float32))
    assert found == pytest.approx(expected, rel=1e-2)


def test_a_perfect_validation_part_does_not_give_full_confidence(trained: Path) -> None:
    table = read_predictions(trained / "predictions.csv", open_engine(trained).card.taxonomy)
    part = table[table["split"] == "validation"]
    p = part[[name for name in part if name.startswith("probability_")]].to_numpy()
    scaled = np.log(p) / read_calibration(trained).facts.temperature
    confidence = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)).max(axis=1)
    assert confidence.mean() <= 25 / 26 + 1e-3


def test_calibration_without_images_is_refused_with_the_command(own_run: Path) -> None:
    shutil.rmtree(own_run / "gates")
    for path in own_run.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(CheckpointError, match="glomerulab gates"):
        fit_calibration(own_run)


def test_a_run_without_validation_is_refused(own_run: Path) -> None:
    for name in ("predictions.csv", "manifest.csv"):
        path = own_run / name
        path.write_text(path.read_text().replace(",validation,", ",train,"))
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="validation"):
        fit_calibration(own_run)


def test_model_facts_name_the_weights_without_a_path(trained: Path) -> None:
    engine, calibration = open_engine(trained), fit_calibration(trained)
    facts = model_facts(engine, calibration, trained)
    assert facts.weights_sha256 == engine.weights_sha256
    assert facts.run == trained.name
    assert facts.labels == engine.card.labels
    assert str(trained.parent) not in facts.model_dump_json()
