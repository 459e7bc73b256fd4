from pathlib import Path

from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.cohort.manifest import read_manifest
from glomerulab.pipeline.extract import extract_crops


def _run(*arguments: str):
    return CliRunner().invoke(app, ["phantom", *arguments], catch_exceptions=False)


def test_crops_are_rendered_and_called_synthetic(tmp_path: Path) -> None:
    result = _run(
        "--out",
        str(tmp_path),
        "--crops",
        "--patients",
        "2",
        "--per-patient",
        "2",
        "--size",
        "48",
        "--mpp",
        "4",
        "--seed",
        "2",
    )
    assert result.exit_code == 0
    assert "synthetic, research use only" in result.output
    assert len(read_manifest(tmp_path / "manifest.csv").table) == 4


def test_glomeruli_cut_out_of_phantom_slides_carry_their_labels(tmp_path: Path) -> None:
    result = _run(
        "--out",
        str(tmp_path / "in"),
        "--slides",
        "--patients",
        "1",
        "--per-patient",
        "3",
        "--mpp",
        "2",
        "--stains",
        "pas",
    )
    assert result.exit_code == 0
    extract_crops(
        tmp_path / "in" / "slides.csv", regions=tmp_path / "in" / "regions", out=tmp_path / "out"
    )
    table = read_manifest(tmp_path / "out" / "manifest.csv").table
    assert len(table) == 3
    assert set(table["stain"]) == {"PAS"}
    assert set(table["patient_id"]) == {"phantom-p001"}
    assert (table[["normal", "mspgn", "fsg", "cgn"]].sum(axis=1) >= 1).all()
