"""The command on a phantom cohort and an untrained network: files, controls, and bad input."""

import pandas as pd
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.taxonomy import load_taxonomy
from tests.support.known_networks import write_small_checkpoint

PAPER = load_taxonomy("paper")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    return write_phantom_crops(folder, n_patients=2, n_per_patient=4, size=96, mpp=2.0, seed=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_small_checkpoint(tmp_path_factory.mktemp("run"), input_size=48, head="sigmoid")


def _explain(*arguments):
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_it_measures_every_method_against_the_phantoms_masks(run, cohort, tmp_path):
    result = _explain(run, cohort, "--sanity", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "occlusion: points at the lesion in" in result.output
    assert "Research use only" in result.output
    table = pd.read_csv(tmp_path / "out" / "explanations.csv")
    with_mask = table[table["mask_share"].notna()]
    assert len(with_mask) > 0
    n_masks = len(list((cohort.parent / "masks").glob("*.png")))
    assert len(with_mask) == 5 * n_masks  # three methods and two controls
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {
        "explanations.csv",
        "methods.csv",
        "sanity.csv",
        "verdicts.csv",
    }
    page = (tmp_path / "out" / "explanations.html").read_text("utf-8")
    assert "Did the maps of this model pass their tests?" in page
    assert page.count("data:image/jpeg") == len(table["overlay"].dropna())
    assert set(pd.read_csv(tmp_path / "out" / "verdicts.csv")["method"]) == set(table["method"]) - {
        "random",
        "centre",
    }
    drawn = table["overlay"].dropna()
    assert all((tmp_path / "out" / name).is_file() for name in drawn)


def test_a_missing_image_becomes_a_row_and_the_command_ends_with_one(run, cohort, tmp_path):
    manifest = tmp_path / "manifest.csv"
    table = pd.read_csv(cohort, dtype=str)
    table["image_path"] = [str(cohort.parent / path) for path in table["image_path"]]
    table.loc[0, "image_path"] = "nowhere.png"
    table.head(2).to_csv(manifest, index=False)
    result = _explain(run, manifest, "--method", "grad-cam", "--sanity", 0)
    assert result.exit_code == 1
    written = pd.read_csv(run / "explanations" / "explanations.csv")
    assert "nowhere.png" in written.loc[written["reason"].notna(), "reason"].item()
    assert written["method"].dropna().isin(["grad-cam", "random", "centre"]).all()


def test_an_unknown_label_names_those_there_are(run, cohort):
    result = _explain(run, cohort, "--label", "esg")
    assert "no label esg; it predicts normal, mspgn, fsg, cgn" in str(result.exception)


@pytest.mark.parametrize("name", ["nope.png", "nope", "broken.png"])
def test_a_source_that_cannot_be_explained_leaves_an_earlier_run(run, cohort, tmp_path, name):
    out = tmp_path / "out"
    arguments = ("--method", "grad-cam", "--sanity", 0, "--out", out)
    image = next(iter(sorted((cohort.parent / "images").glob("*.png"))))
    assert _explain(run, image, *arguments).exit_code == 0
    before = {path: path.read_bytes() for path in out.glob("*.csv")}
    (tmp_path / "broken.png").write_bytes(image.read_bytes()[:2000])
    result = _explain(run, tmp_path / name, *arguments)
    assert result.exit_code == 1
    assert name in str(result.exception)
    assert {path: path.read_bytes() for path in out.glob("*.csv")} == before


def test_a_failed_first_run_leaves_no_folder(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    result = _explain(run, tmp_path / "broken.png", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()
