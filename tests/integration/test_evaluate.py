import json
import math

import pandas as pd
import pytest
from tests.run_folders import RunRecipe, write_run
from typer.testing import CliRunner

from glomerulab.cli.main import app


def _evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "first")
    result = _evaluate(folder)
    assert result.exit_code == 0, result.output
    return folder, result


def test_it_prints_the_headline_and_where_the_report_is(judged_run):
    folder, result = judged_run
    assert "held-out images of 8 patients" in result.output
    assert str(folder / "report.html") in result.output


def test_it_writes_report_figures_and_scores(judged_run):
    folder, _ = judged_run
    assert (folder / "report.html").stat().st_size > 50_000
    names = {path.name for path in (folder / "figures").iterdir()}
    for figure in ("learning_curves", "confusion_matrix", "roc", "reliability", "decision_curves"):
        assert {f"{figure}.png", f"{figure}.svg"} <= names


def test_csv_json_and_page_hold_the_same_numbers(judged_run):
    folder, _ = judged_run
    table = pd.read_csv(folder / "scores.csv")
    read = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert len(read["scores"]) == len(table)
    for row, (_, expected) in zip(read["scores"], table.iterrows(), strict=True):
        assert row["score"] == expected["score"]
        if row["value"] is None:
            assert math.isnan(expected["value"])
        else:
            assert row["value"] == pytest.approx(expected["value"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    accuracy = table.loc[table["score"] == "accuracy"].iloc[0]
    assert f"{accuracy['value']:.3f}" in page
    assert f"{accuracy['low']:.3f} to {accuracy['high']:.3f}" in page


def test_the_page_says_research_only_and_synthetic(judged_run):
    folder, _ = judged_run
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert "SYNTHETIC DATA" in page


def test_judging_twice_gives_the_same_bytes(judged_run):
    folder, _ = judged_run
    before = {path.name: path.read_bytes() for path in folder.glob("scores.*")}
    page = (folder / "report.html").read_bytes()
    assert _evaluate(folder).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.glob("scores.*")} == before
    assert (folder / "report.html").read_bytes() == page


def test_real_data_carries_no_synthetic_banner(tmp_path):
    folder = write_run(tmp_path / "run", RunRecipe(synthetic=False, n_patients=12))
    assert _evaluate(folder).exit_code == 0
    assert "SYNTHETIC" not in (folder / "report.html").read_text(encoding="utf-8")


def test_a_split_by_image_is_called_by_its_name(tmp_path):
    folder = write_run(tmp_path / "run", RunRecipe(by_patient=False, n_patients=12))
    assert _evaluate(folder).exit_code == 0
    assert "Split by image, not by patient" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_multi_label_run_is_judged_by_exact_match(tmp_path):
    folder = write_run(tmp_path / "run", RunRecipe(head="sigmoid", n_patients=12))
    result = _evaluate(folder)
    assert result.exit_code == 0, result.output
    assert "had every label right on" in result.output


def test_an_absent_class_is_not_defined_and_nothing_breaks(tmp_path):
    folder = write_run(tmp_path / "run", RunRecipe(n_patients=15))
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[table["label_cgn"] == 0].to_csv(folder / "predictions.csv", index=False)
    result = _evaluate(folder)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv(folder / "scores.csv")
    assert (
        scores.loc[(scores["label"] == "cgn") & (scores["score"] == "recall"), "value"].isna().all()
    )
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Crescent: its scores are not defined" in page


def test_a_lost_picture_is_replaced_by_the_reason(tmp_path):
    folder = write_run(tmp_path / "run", RunRecipe(n_patients=12, skill=0.2))
    for path in (folder / "images").iterdir():
        path.unlink()
    assert _evaluate(folder).exit_code == 0
    assert "No such file" in (folder / "report.html").read_text(encoding="utf-8")
