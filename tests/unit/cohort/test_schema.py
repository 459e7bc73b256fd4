import pandas as pd

from glomerulab.cohort.schema import MANIFEST_COLUMNS, Problem, typed_table
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")


def test_text_is_stripped_and_empty_text_is_missing() -> None:
    rows = pd.DataFrame({"image_id": [" a "], "image_path": ["a b.png"], "patient_id": ["  "]})
    table, problems = typed_table(rows, PAPER)
    assert problems == []
    assert table.loc[0, "image_id"] == "a"
    assert table["patient_id"].isna().all()


def test_labels_may_be_truth_values_or_numbers_with_a_point() -> None:
    rows = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "image_path": ["a", "b"],
            "normal": [True, False],
            "fsg": [1.0, float("nan")],
            "cgn": ["0.0", "1"],
        }
    )
    table, problems = typed_table(rows, PAPER)
    assert problems == []
    assert table["normal"].tolist() == [1, 0]
    assert table["fsg"].tolist() == [1, pd.NA]
    assert table["cgn"].tolist() == [0, 1]


def test_columns_have_a_canonical_order_and_others_follow() -> None:
    rows = pd.DataFrame({"zebra": ["z"], "cgn": [1], "image_path": ["a"], "image_id": ["a"]})
    table, _ = typed_table(rows, PAPER)
    assert list(table) == [*MANIFEST_COLUMNS, *PAPER.label_ids, "zebra"]


def test_a_problem_counts_lines_as_an_editor_does() -> None:
    assert str(Problem("is odd", 0, "a")) == "line 2, image 'a': is odd"
    assert str(Problem("is odd", 10)) == "line 12: is odd"
    assert str(Problem("is odd")) == "is odd"
