import math
from pathlib import Path

import pandas as pd

from glomerulab.evaluation.comparison import ModelCost
from glomerulab.reports.run.model_table import model_page_table, model_table, write_model_table

COST = ModelCost(224, 18_420_000, 2_900_000_000, 11.53, 40.27, 73_712_345, "a processor")
NAN = float("nan")


def _scores(accuracy: float, low: float, high: float) -> pd.DataFrame:
    rows = [
        {"label": None, "score": score, "value": accuracy, "low": low, "high": high}
        for score in ("accuracy", "macro_f1", "macro_roc_auc")
    ]
    return pd.DataFrame(rows)


def test_scores_with_intervals_stand_beside_costs(tmp_path: Path) -> None:
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
    assert "| net | 0.969<br>0.950 to 0.980 |" in markdown
    assert "Synthetic" in markdown
