import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import CheckpointError
from glomerulab.images import read_image
from glomerulab.inference.calibration import nearest, read_gates, whitened
from glomerulab.inference.engines.base import open_engine, stacked
from glomerulab.inference.fit_calibration import fit_cloud, fit_gates
from glomerulab.predictions import read_predictions


def test_gates_say_what_the_run_was_trained_on(trained: Path) -> None:
    facts = read_gates(trained).facts
    assert facts.n_training_images == 48
    assert facts.n_training_patients == 12
    assert facts.stains_seen == {"PAS": 48}
    assert facts.n_validation == 24
    assert facts.trained_on_synthetic
    assert "of 12 held-out images right" in facts.test_summary


def test_the_threshold_lets_the_promised_share_of_validation_pass(trained: Path) -> None:
    gates, engine = read_gates(trained), open_engine(trained)
    manifest = read_manifest(trained / "manifest.csv")
    inside = (manifest.table["split"] == "validation").to_numpy(dtype=bool)
    images = [read_image(p) for p, k in zip(manifest.image_paths(), inside, strict=True) if k]
    far = gates.distances(engine.answer(stacked(images, 32)).features)
    assert (far <= gates.facts.distance_threshold + 1e-6).sum() == 24  # ceil(25 x 0.95) of 24


def test_distances_are_mahalanobis_in_features_of_one_scale(rng: np.random.Generator) -> None:
    features = rng.normal(size=(60, 6)) @ np.diag([1e-3, 1, 10, 1, 0.1, 5]) + 3
    labels = np.eye(2)[np.arange(60) % 2]
    means, whitening = fit_cloud(features.astype(np.float32), labels, where="run")
    centres = np.stack([features[k::2].mean(axis=0) for k in range(2)])
    inside = features - centres[np.arange(60) % 2]
    scale = inside.std(axis=0)
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(inside / scale).covariance_)
    expected = [
        min(mahalanobis(row / scale, centre / scale, precision) for centre in centres)
        for row in features
    ]
    # Classes stand in the order of their rows of labels.
    assert sorted(means[:, 2].tolist()) == pytest.approx(sorted(centres[:, 2].tolist()), rel=1e-4)
    found = nearest(features.astype(np.float32), whitened(means, whitening))
    assert found == pytest.approx(expected, rel=1e-2)


def test_a_perfect_validation_part_does_not_make_a_model_infallible(trained: Path) -> None:
    table = read_predictions(trained / "predictions.csv", open_engine(trained).card.taxonomy)
    part = table[table["split"] == "validation"]
    p = part[[name for name in part if name.startswith("probability_")]].to_numpy()
    scaled = np.log(p) / read_gates(trained).facts.temperature
    confidence = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)).max(axis=1)
    assert confidence.mean() <= 25 / 26 + 1e-3


def test_a_run_without_its_images_says_how_to_fit_them(own_run: Path) -> None:
    shutil.rmtree(own_run / "gates")
    for path in own_run.parent.glob("*.png"):
        path.unlink()
    with pytest.raises(CheckpointError, match="glomerulab gates"):
        fit_gates(own_run)


def test_a_run_without_validation_is_refused(own_run: Path) -> None:
    (own_run / "seal.json").unlink()
    for name in ("predictions.csv", "manifest.csv"):
        path = own_run / name
        path.write_text(path.read_text().replace(",validation,", ",train,"))
    with pytest.raises(CheckpointError, match="validation"):
        fit_gates(own_run)
