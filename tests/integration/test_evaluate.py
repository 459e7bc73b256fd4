import json
import math

import pandas as pd
import pytest
from typer.testing import CliRunner

from glomerulab.cli.main import app
from tests.support.run_folders import RunRecipe, write_run

SKILLS = [("able", 2.2), ("poor", 1.0)]


def _evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", "--tables-only", *map(str, arguments)])


@pytest.fixture(scope="module")
def evaluated_run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("runs") / "first")
    result = _evaluate(folder)
    assert result.exit_code == 0, result.output
    return folder, result


def test_it_prints_the_headline_and_the_report_path(evaluated_run):
    folder, result = evaluated_run
    assert "held-out images of 8 patients" in result.output
    assert str(folder / "report.html") in result.output


def test_it_writes_report_figures_and_scores(evaluated_run):
    folder, _ = evaluated_run
    assert (folder / "report.html").stat().st_size > 50_000
    names = {path.name for path in (folder / "figures").iterdir()}
    for figure in ("learning_curves", "confusion_matrix", "roc", "reliability", "decision_curves"):
        assert {f"{figure}.png", f"{figure}.svg"} <= names


def test_csv_json_and_page_hold_the_same_numbers(evaluated_run):
    folder, _ = evaluated_run
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


def test_the_page_is_marked_research_only_and_synthetic(evaluated_run):
    folder, _ = evaluated_run
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert "SYNTHETIC DATA" in page


def test_evaluating_twice_gives_the_same_bytes(evaluated_run):
    folder, _ = evaluated_run
    before = {path.name: path.read_bytes() for path in folder.glob("scores.*")}
    page = (folder / "report.html").read_bytes()
    assert _evaluate(folder).exit_code == 0
    assert {path.name: path.read_bytes() for path in folder.glob("scores.*")} == before
    assert (folder / "report.html").read_bytes() == page


def test_a_multi_label_run_without_its_pictures_and_with_an_absent_class_is_evaluated(tmp_path):
    recipe = RunRecipe(head="sigmoid", n_patients=12, synthetic=False, by_patient=False)
    folder = write_run(tmp_path / "run", recipe)
    for path in (folder / "images").iterdir():
        path.unlink()
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[table["label_cgn"] == 0].to_csv(folder / "predictions.csv", index=False)
    result = _evaluate(folder, "--language", "zh")
    assert result.exit_code == 0, result.output
    assert "had every label correct on" in result.output
    scores = pd.read_csv(folder / "scores.csv")
    recall = scores.loc[(scores["label"] == "cgn") & (scores["score"] == "recall"), "value"]
    assert recall.isna().all()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "其得分无法计算" in page
    assert "no such image file" in page
    assert "Split by image, not by patient" in page
    assert "SYNTHETIC" not in page


def test_several_runs_are_compared(tmp_path):
    runs = [write_run(tmp_path / name, RunRecipe(n_patients=10, skill=s)) for name, s in SKILLS]
    result = _evaluate(*runs, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "out" / "comparison.html") in result.output
    assert (tmp_path / "out" / "comparison.csv").is_file()


def test_an_output_folder_for_one_run_is_wrong_usage(tmp_path):
    result = _evaluate(tmp_path, "--out", tmp_path)
    assert result.exit_code == 2
    assert "--out" in result.output


def _theirs(evaluated_run, folder):
    """The run's own predictions, as another program would write them, and the truth apart."""
    table = pd.read_csv(evaluated_run[0] / "predictions.csv").query("split == 'test'")
    ids = ["normal", "mspgn", "fsg", "cgn"]
    theirs = table[["image_id"]].assign(**{name: table[f"probability_{name}"] for name in ids})
    theirs.to_csv(folder / "theirs.csv", index=False)
    truth = table[["image_id", "patient_id"]].assign(
        label=table[[f"label_{name}" for name in ids]].idxmax(axis=1).str.removeprefix("label_")
    )
    truth.to_csv(folder / "truth.csv", index=False)
    return folder / "theirs.csv", folder / "truth.csv"


def test_the_table_of_any_model_gives_the_scores_of_the_run(evaluated_run, tmp_path):
    theirs, truth = _theirs(evaluated_run, tmp_path)
    arguments = ("evaluate", theirs, "--truth", truth, "--taxonomy", "paper")
    figures = ("--figures", "svg,pdf", "--width-mm", "85")
    result = CliRunner().invoke(app, [*map(str, arguments), *figures])
    assert result.exit_code == 0, result.output
    out = tmp_path / "theirs-evaluation"
    own, found = (pd.read_csv(folder / "scores.csv") for folder in (evaluated_run[0], out))
    for column in ("value", "low", "high"):
        assert found[column].to_numpy() == pytest.approx(own[column].to_numpy(), nan_ok=True)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Training unknown" in page
    assert "Not sealed" not in page
    assert {path.suffix for path in (out / "figures").iterdir()} == {".svg", ".pdf"}
    assert r"\begin{tabular}" in (out / "scores.tex").read_text(encoding="utf-8")


def test_a_table_is_not_evaluated_into_a_run(evaluated_run, tmp_path):
    theirs, truth = _theirs(evaluated_run, tmp_path)
    arguments = ("evaluate", theirs, "--truth", truth, "--out", evaluated_run[0])
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "holds a run" in str(result.exception)
    assert "evaluation of first" in (evaluated_run[0] / "report.html").read_text("utf-8").lower()


def test_options_of_a_table_are_refused_for_a_run(evaluated_run):
    assert "--truth" in _evaluate(evaluated_run[0], "--truth", "labels.csv").output
