import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, read_manifest, write_manifest
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.predictions import read_predictions
from glomerulab.taxonomy import Label, Taxonomy

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "network.toml"
GLAS = Taxonomy(
    "glas",
    (
        Label(id="benign", name="Benign", excludes=("malignant",)),
        Label(id="malignant", name="Malignant"),
    ),
)


def _glomerulab(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glomerulab", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _write_glas(root: Path, out: Path) -> Path:
    """Split by patient: of the 16 every fourth is tested, every fourth validated."""
    labels = pd.read_csv(root / "labels.csv", dtype=str)
    parts = {str(p): ("test", "train", "validation", "train")[p % 4] for p in range(100)}
    rows = pd.DataFrame(
        {
            "image_id": labels["image"],
            "image_path": "images/" + labels["image"],
            "patient_id": labels["patient_id"],
            "stain": "HE",
            "split": labels["patient_id"].map(parts),
            "benign": (labels["label"] == "benign").astype(int),
            "malignant": (labels["label"] == "malignant").astype(int),
        }
    )
    write_manifest(manifest_from_rows(rows, folder=root, taxonomy=GLAS), out / "manifest.csv")
    return out / "manifest.csv"


@pytest.mark.real
@pytest.mark.slow
def test_real_colon_glands_are_augmented_trained_on_and_predicted(
    real_data: Path, tmp_path: Path
) -> None:
    manifest = _write_glas(real_data / "glas_colon_he", tmp_path)
    n_before = (read_manifest(manifest).table["split"] == "train").sum()
    done = _glomerulab("augment", manifest, "--to", str(n_before + 5), "--out", tmp_path / "more")
    assert done.returncode == 0, done.stderr
    more = tmp_path / "more" / "manifest.csv"
    assert (read_manifest(more).table["split"] == "train").sum() == n_before + 5
    done = _glomerulab(
        "train",
        CONFIG,
        "--manifest",
        more,
        "--out",
        tmp_path / "run",
        "--set",
        "epochs=3",
        "--set",
        "model.name=improved_seresnet_small",
    )
    assert done.returncode == 0, done.stderr
    assert "research use only" in done.stdout
    _, card = load_checkpoint(tmp_path / "run")
    assert card.taxonomy == GLAS
    predictions = read_predictions(tmp_path / "run" / "predictions.csv", GLAS)
    assert len(predictions) == 165
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 3


def test_an_unknown_key_on_the_command_line_is_one_line_and_exit_code_1() -> None:
    done = _glomerulab("train", CONFIG, "--set", "optimizer.lr=1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unknown key 'optimizer.lr'" in done.stderr
    done = _glomerulab("train", CONFIG, "--set", "epochs")
    assert "--set needs KEY=VALUE, got 'epochs'" in done.stderr
