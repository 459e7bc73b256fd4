import json

import pandas as pd
import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.score_files import write_scores_json, write_table_csv
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def judgement(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe(n_patients=15))
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[table["label_cgn"] == 0].to_csv(folder / "predictions.csv", index=False)
    return evaluate_run(read_run(folder))


def test_the_csv_reads_back_as_the_table(judgement, tmp_path):
    write_table_csv(judgement.scores, tmp_path / "scores.csv")
    read = pd.read_csv(tmp_path / "scores.csv", dtype={"label": "string"})
    pd.testing.assert_frame_equal(read, judgement.scores, check_dtype=False)


def test_json_says_null_where_a_score_is_not_defined(judgement, tmp_path):
    write_scores_json(judgement, tmp_path / "scores.json", headline="so it went")
    read = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert read["headline"] == "so it went"
    (row,) = [r for r in read["scores"] if r["label"] == "cgn" and r["score"] == "recall"]
    assert row["value"] is None
    assert row["n_positive"] == 0


def test_json_holds_what_the_page_shows(judgement, tmp_path):
    write_scores_json(judgement, tmp_path / "scores.json", headline="")
    read = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert read["calibration"]["brier"] == pytest.approx(judgement.calibration.brier)
    assert read["fitted_on_validation"]["temperature"] == judgement.fitted.temperature
    assert len(read["fitted_on_validation"]["conformal"]) == 3
    assert {row["column"] for row in read["subgroups"]} == {"stain", "slide_id", "patient_id"}
    assert any(caveat["title"] == "Class absent" for caveat in read["caveats"])
