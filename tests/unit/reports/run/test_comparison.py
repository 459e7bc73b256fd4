import math
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.errors import ConfigError
from glomerulab.evaluation.comparison import ModelCost
from glomerulab.reports.run.comparison import (
    model_page_table,
    model_table,
    write_comparison,
    write_model_table,
)
from tests.support.run_folders import RunRecipe, write_run

SMALL = {"n_patients": 15, "n_images_per_patient": 6}


def _better(folder):
    """Move every probability towards the truth."""
    table = pd.read_csv(folder / "predictions.csv")
    for label in ("normal", "mspgn", "fsg", "cgn"):
        near = 0.5 * table[f"probability_{label}"] + 0.5 * table[f"label_{label}"]
        table[f"probability_{label}"] = near
    table.to_csv(folder / "predictions.csv", index=False)
    return folder


@pytest.fixture
def runs(tmp_path):
    first = write_run(tmp_path / "plain", RunRecipe(**SMALL, skill=0.8))
    return first, _better(write_run(tmp_path / "better", RunRecipe(**SMALL, skill=0.8)))


def test_the_better_run_is_named_with_its_gain(runs, tmp_path):
    report = write_comparison(runs, tmp_path / "out")
    assert report.headline.startswith("better is correct more often than plain, by ")
    page = report.html_path.read_text(encoding="utf-8")
    assert report.headline.split(" (")[0] in page
    assert "SYNTHETIC DATA" in page
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["difference"].item() == pytest.approx(report.comparisons[0].difference)


def test_a_run_does_not_differ_from_its_copy(runs, tmp_path):
    copy = write_run(tmp_path / "copy", RunRecipe(**SMALL, skill=0.8))
    report = write_comparison([runs[0], copy], tmp_path / "out")
    assert "may be chance" in report.headline


def test_runs_of_one_name_are_named_by_their_path(tmp_path):
    runs = [write_run(tmp_path / place / "run", RunRecipe(**SMALL)) for place in "ab"]
    (found,) = write_comparison(runs, tmp_path / "out").comparisons
    assert (found.first, found.second) == tuple(str(run) for run in runs)


def test_other_test_images_are_a_warning(runs, tmp_path):
    table = pd.read_csv(runs[1] / "predictions.csv")
    dropped = table.index[table["split"] == "test"][:3]
    table.drop(index=dropped).to_csv(runs[1] / "predictions.csv", index=False)
    page = write_comparison(runs, tmp_path / "out").html_path.read_text(encoding="utf-8")
    assert "Different test sets" in page


def test_one_class_and_several_labels_are_not_compared(runs, tmp_path):
    several = write_run(tmp_path / "several", RunRecipe(**SMALL, head="sigmoid"))
    with pytest.raises(ConfigError, match="plain, several"):
        write_comparison([runs[0], several], tmp_path / "out")


def test_areas_are_compared_by_delong_only_where_images_are_independent(runs, tmp_path):
    crowded = write_comparison(runs, tmp_path / "crowded")
    assert "DeLong" not in crowded.html_path.read_text(encoding="utf-8")
    assert not (tmp_path / "crowded" / "areas.csv").exists()
    alone = {"n_patients": 150, "n_images_per_patient": 1, "skill": 0.8}
    first = write_run(tmp_path / "alone", RunRecipe(**alone))
    second = _better(write_run(tmp_path / "alone_better", RunRecipe(**alone)))
    report = write_comparison([first, second], tmp_path / "out")
    page = report.html_path.read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "out" / "areas.csv")
    assert len(table) == 4
    assert (table["difference"] < 0).all()
    for one in table.itertuples():
        assert f"{one.difference:+.3f}".replace("-", "−") in page


def test_a_warning_about_one_run_names_it(runs, tmp_path):
    leaking = write_run(tmp_path / "leaking", RunRecipe(**SMALL, by_patient=False))
    page = write_comparison([leaking, runs[0]], tmp_path / "out").html_path.read_text("utf-8")
    assert page.count("Split by image, not by patient") == 1
    assert "This concerns leaking." in page
    clean = write_comparison(runs, tmp_path / "clean").html_path.read_text("utf-8")
    assert "Split by image" not in clean
    assert clean.count("Not sealed") == 1  # concerns both runs


COST = ModelCost(224, 18_420_000, 2_900_000_000, 11.53, 40.27, 73_712_345, "a processor")
NAN = float("nan")


def _scores(accuracy: float, low: float, high: float) -> pd.DataFrame:
    rows = [
        {"label": None, "score": score, "value": accuracy, "low": low, "high": high}
        | {"interval_method": "bootstrap"}
        for score in ("accuracy", "macro_f1", "macro_roc_auc")
    ]
    return pd.DataFrame(rows)


def test_the_model_table_has_scores_with_intervals_and_costs(tmp_path: Path) -> None:
    scores = {"net": _scores(0.9693, 0.95, 0.98), "other": _scores(0.5, NAN, NAN)}
    table = model_table(scores, {"net": COST, "other": COST}, head="softmax")
    page = model_page_table(table, head="softmax")
    assert page.rows[0] == (
        "net",
        *["0.969\n0.950 to 0.980"] * 3,
        "18.42 M",
        "2.90 G\nat 224 px",
        "11.5 img/s",
        "40.3 img/s",
        "73.7 MB",
    )
    assert page.rows[1][1] == "0.500"
    assert "a processor" in page.note
    write_model_table(table, tmp_path, head="softmax", is_synthetic=True)
    read = pd.read_csv(tmp_path / "table1.csv")
    assert read["accuracy"].tolist() == [0.9693, 0.5]
    assert math.isnan(read["accuracy_low"][1])
    markdown = (tmp_path / "table1.md").read_text(encoding="utf-8")
    assert "| net | 0.969 (0.950 to 0.980) |" in markdown
    assert "Synthetic" in markdown
