"""A case folder of the previous version, with two corrections and the results it counted."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app

PREVIOUS = Path(__file__).resolve().parents[1] / "data" / "previous" / "case"
NUMBERS = ["rule_set", "item", "grade", "n_with", "n_of", "low", "high", "possible"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(PREVIOUS, tmp_path / "case")
    return tmp_path / "case"


def _results(folder: Path, out: Path) -> pd.DataFrame:
    done = CliRunner().invoke(app, ["report", str(folder), "--format", "csv", "--out", str(out)])
    assert done.exit_code == 0, done.output
    return pd.read_csv(out / "p1.results.csv", encoding="utf-8-sig")


def test_a_case_of_the_previous_version_has_the_same_counts(folder: Path, tmp_path: Path) -> None:
    before = pd.read_csv(PREVIOUS / "results.csv", encoding="utf-8-sig")
    after = _results(folder, tmp_path / "reports")
    # It held no record of its files; others say what one label for each glomerulus means, and what
    # needs outlines of the tissue.
    new = ["one_label", "label_sum", "unrecorded", "not_assessed", "arteries", "ci", "ct"]
    is_new = after["item"].isin(new)
    assert after.loc[is_new, "item"].tolist() == new
    after = after[~is_new].reset_index(drop=True)
    # A range of one number was written as two.
    before["possible"] = before["possible"].str.replace(r"^(\S+) to \1$", r"\1", regex=True)
    pd.testing.assert_frame_equal(after[NUMBERS], before[NUMBERS])


def test_a_correction_is_added_to_a_case_of_the_previous_version(
    folder: Path, tmp_path: Path
) -> None:
    first = (folder / "overrides.csv").read_bytes()
    arguments = ["--labels", "normal", "--by", "Dr Wu", "--reason", "no lesion"]
    done = CliRunner().invoke(app, ["override", str(folder), "g11", *arguments])
    assert done.exit_code == 0, done.output
    assert (folder / "overrides.csv").read_bytes().startswith(first)
    changed = _results(folder, tmp_path / "reports")
    assert not changed.equals(pd.read_csv(PREVIOUS / "results.csv", encoding="utf-8-sig"))


def test_every_format_is_written_from_a_case_of_the_previous_version(
    folder: Path, tmp_path: Path
) -> None:
    formats = "html,pdf,csv,fhir,dicom-sr"
    arguments = ["report", str(folder), "--format", formats, "--out", str(tmp_path / "reports")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    suffixes = {path.suffix for path in (tmp_path / "reports").iterdir()}
    assert suffixes == {".html", ".pdf", ".csv", ".json", ".dcm"}
