from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from glomerulab.errors import CheckpointError
from glomerulab.inference.calibration import has_gates, nearest, read_gates, whitened, write_gates


def test_the_distance_is_mahalanobis_to_the_nearest_class(rng: np.random.Generator) -> None:
    root = rng.normal(size=(5, 5))
    precision = root @ root.T + np.eye(5)
    means = rng.normal(size=(3, 5)).astype(np.float32)
    rows = rng.normal(size=(7, 5)).astype(np.float32)
    found = nearest(rows, whitened(means, np.linalg.cholesky(precision).astype(np.float32)))
    expected = [min(mahalanobis(row, mean, precision) for mean in means) for row in rows]
    assert found == pytest.approx(expected, rel=1e-4)


def test_gates_come_back_as_written(trained: Path, tmp_path: Path) -> None:
    gates = read_gates(trained)
    write_gates(gates, tmp_path)
    again = read_gates(tmp_path)
    assert has_gates(tmp_path)
    assert again.facts == gates.facts
    assert np.array_equal(again.whitening, gates.whitening)
    assert again.mark == gates.mark


def test_altered_gates_are_refused(own_run: Path) -> None:
    path = next((own_run / "gates").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_gates(own_run)


def test_gates_of_an_older_version_name_the_way_out(own_run: Path) -> None:
    path = own_run / "gates" / "gates.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(CheckpointError, match="glomerulab gates RUN"):
        read_gates(own_run)
