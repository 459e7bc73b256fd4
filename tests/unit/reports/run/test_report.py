import json
import re

import numpy as np
import pandas as pd
import pytest

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.report import write_run_report, write_scores_json
from glomerulab.reports.run.tables import write_table_csv
from tests.support.run_folders import RunRecipe, write_run


def test_a_missing_split_writes_nothing(tmp_path):
    run = write_run(tmp_path / "run", RunRecipe(n_patients=8, n_images_per_patient=6))
    before = {path.name for path in run.iterdir()}
    with pytest.raises(PredictionsError, match="'external'"):
        write_run_report(run, split="external")
    assert {path.name for path in run.iterdir()} == before


def _delong_by_definition(labels, scores):
    """Area and its 95 % interval from every pair of images, DeLong et al. 1988, eq. (5)."""
    gap = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    kernel = (gap > 0) + 0.5 * (gap == 0)
    v10, v01 = kernel.mean(axis=1), kernel.mean(axis=0)
    reach = 1.959964 * np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))
    return kernel.mean(), kernel.mean() - reach, kernel.mean() + reach


def _rows_of_table(page: str, title: str) -> list[list[str]]:
    """Cells of the table that follows a heading, as text without tags."""
    after = page.split(title, 1)[1]
    body = after.split("<tbody>", 1)[1].split("</tbody>", 1)[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, flags=re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_page_gives_delongs_areas_where_every_patient_has_one_image(tmp_path, head):
    recipe = RunRecipe(n_patients=200, n_images_per_patient=1, skill=1.0, head=head)
    run = write_run(tmp_path / "run", recipe)
    table = pd.read_csv(run / "predictions.csv").query("split == 'test'")
    expected = {}
    for label in ("normal", "mspgn", "fsg", "cgn"):
        known = table.dropna(subset=[f"label_{label}"])
        expected[label] = _delong_by_definition(
            known[f"label_{label}"].to_numpy(), known[f"probability_{label}"].to_numpy()
        )
    page = write_run_report(run).html_path.read_text(encoding="utf-8")
    shown = _rows_of_table(page, "ROC-AUC by DeLong")
    written = json.loads((run / "scores.json").read_text(encoding="utf-8"))["delong"]
    assert [one["label"] for one in written] == list(expected)
    assert len(shown) == len(expected)
    for cells, one, (auc, low, high) in zip(shown, written, expected.values(), strict=True):
        assert cells[1:] == [f"{auc:.3f}", f"{max(low, 0):.3f} to {min(high, 1):.3f}"]
        assert one["standard_error"] == pytest.approx((high - auc) / 1.959964)


def test_the_page_gives_no_delong_where_a_patient_has_two_images(tmp_path):
    run = write_run(tmp_path / "run", RunRecipe(n_patients=20, n_images_per_patient=2))
    page = write_run_report(run).html_path.read_text(encoding="utf-8")
    assert "ROC-AUC by DeLong" not in page
    assert json.loads((run / "scores.json").read_text(encoding="utf-8"))["delong"] == []


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe(n_patients=15))
    table = pd.read_csv(folder / "predictions.csv")
    table.loc[table["label_cgn"] == 0].to_csv(folder / "predictions.csv", index=False)
    return evaluate_run(read_run(folder))


def test_the_csv_reads_back_as_the_table(result, tmp_path):
    write_table_csv(result.scores, tmp_path / "scores.csv")
    read = pd.read_csv(tmp_path / "scores.csv", dtype={"label": "string"})
    pd.testing.assert_frame_equal(read, result.scores, check_dtype=False)


def test_json_is_null_where_a_score_is_not_defined(result, tmp_path):
    write_scores_json(result, tmp_path / "scores.json", headline="a headline")
    read = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert read["headline"] == "a headline"
    (row,) = [r for r in read["scores"] if r["label"] == "cgn" and r["score"] == "recall"]
    assert row["value"] is None
    assert row["n_positive"] == 0


def test_json_holds_what_the_page_shows(result, tmp_path):
    write_scores_json(result, tmp_path / "scores.json", headline="")
    read = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert read["calibration"]["brier"] == pytest.approx(result.calibration.brier)
    assert read["fitted_on_validation"]["temperature"] == result.fitted.temperature
    assert len(read["fitted_on_validation"]["conformal"]) == 3
    assert {row["column"] for row in read["subgroups"]} == {"stain", "slide_id", "patient_id"}
    assert any(caveat["title"] == "Class absent" for caveat in read["caveats"])
