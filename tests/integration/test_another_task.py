"""The pipeline on another medical image task: GlaS colon glands, benign or malignant."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_colon_glands_go_from_labels_csv_to_a_report(real_data: Path, tmp_path: Path) -> None:
    glas = real_data / "glas_colon_he"
    _run(
        "manifest",
        "import",
        str(glas / "labels.csv"),
        "--out",
        str(tmp_path / "manifest.csv"),
        "--taxonomy",
        str(ROOT / "configs" / "taxonomies" / "glas.toml"),
        "--image-root",
        str(glas / "images"),
        "--column",
        "image_path=image",
        "--column",
        "patient_id=patient_id",
        "--label-column",
        "label",
        "--set",
        "stain=HE",
    )
    _run(
        "split",
        str(tmp_path / "manifest.csv"),
        "--out",
        str(tmp_path / "split.csv"),
        "--by",
        "patient",
    )
    table = read_manifest(tmp_path / "split.csv").table
    assert len(table) == 165
    assert table["patient_id"].nunique() == 16
    assert table.groupby("patient_id")["split"].nunique().max() == 1

    run = tmp_path / "run"
    _run(
        "train",
        str(ROOT / "configs" / "network.toml"),
        "--manifest",
        str(tmp_path / "split.csv"),
        "--out",
        str(run),
        "--set",
        "epochs=3",
        "--set",
        "model.name=improved_seresnet_small",
        "--set",
        "model.input_size=96",
    )
    result = _run("evaluate", str(run))
    assert f"Report: {run / 'report.html'}" in result.output
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert scores["synthetic"] is False
    assert scores["n_images"] == int((table["split"] == "test").sum())


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result
