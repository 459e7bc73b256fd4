import json

import pandas as pd
from tests.judged_samples import judged_from, random_softmax

from glomerulab.evaluation.scores import score_table
from glomerulab.report.write_scores import write_scores_csv, write_scores_json


def _scores():
    judged = random_softmax()
    kept = judged.truth != 3
    return score_table(
        judged_from(judged.labels[kept], judged.probabilities[kept], judged.patients[kept])
    )


def test_the_csv_reads_back_as_the_table(tmp_path):
    scores = _scores()
    write_scores_csv(scores, tmp_path / "scores.csv")
    read = pd.read_csv(tmp_path / "scores.csv", dtype={"label": "string"})
    pd.testing.assert_frame_equal(read, scores, check_dtype=False)


def test_json_says_null_where_a_score_is_not_defined(tmp_path):
    write_scores_json(_scores(), tmp_path / "scores.json", about={"split": "test"})
    read = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert read["split"] == "test"
    (row,) = [r for r in read["scores"] if r["label"] == "cgn" and r["score"] == "recall"]
    assert row["value"] is None
    assert row["n_positive"] == 0
