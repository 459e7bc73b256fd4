from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.errors import PredictionsError
from glomerulab.predictions import (
    label_array,
    predictions_table,
    probability_array,
    read_predictions,
    validate_predictions,
    write_predictions,
)
from glomerulab.taxonomy import load_taxonomy

PAPER = load_taxonomy("paper")
PROBABILITIES = np.array([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])


def _rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": pd.array(["007", "b"], dtype="string"),
            "image_path": ["a.png", "b.png"],
            "patient_id": pd.array(["1", pd.NA], dtype="string"),
            "split": pd.array(["test", "test"], dtype="string"),
            **{label: pd.array([1, pd.NA], dtype="Int8") for label in PAPER.label_ids},
        }
    )


def _table() -> pd.DataFrame:
    return predictions_table(_rows(), PROBABILITIES, PAPER)


def test_a_table_holds_keys_labels_and_probabilities_and_no_paths() -> None:
    assert list(_table())[:5] == [
        "image_id",
        "patient_id",
        "split",
        "label_normal",
        "probability_normal",
    ]
    assert np.array_equal(probability_array(_table(), PAPER), PROBABILITIES)
    assert np.isnan(label_array(_table(), PAPER)[1]).all()


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_predictions(_table(), tmp_path / "predictions.csv")
    again = read_predictions(tmp_path / "predictions.csv", PAPER)
    pd.testing.assert_frame_equal(again, _table())


def test_probabilities_of_another_shape_are_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(2, 4\), got \(2, 3\)"):
        predictions_table(_rows(), PROBABILITIES[:, :3], PAPER)


def _changed(column: str, row: int, value: object) -> pd.DataFrame:
    table = _table()
    table[column] = table[column].astype(object)
    table.loc[row, column] = value
    return table


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("probability_cgn", 1.2, "line 3, image 'b': .*from 0 to 1"),
        ("probability_cgn", np.nan, "line 3, image 'b': .*from 0 to 1"),
        ("probability_cgn", 0.5, "line 3, image 'b': .*sum to 1"),
        ("label_fsg", 2, "line 3, image 'b': a label"),
        ("image_id", "007", "line 3, image '007': .*two rows"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(column: str, value: object, reason: str) -> None:
    with pytest.raises(PredictionsError, match=reason):
        validate_predictions(_changed(column, 1, value), PAPER)


def test_under_a_sigmoid_head_probabilities_need_not_sum_to_one() -> None:
    table = _changed("probability_cgn", 1, 0.9)
    validate_predictions(table, PAPER, head="sigmoid")
    with pytest.raises(PredictionsError, match="sum"):
        validate_predictions(table, PAPER, head="softmax")


def test_missing_and_surplus_columns_are_named() -> None:
    with pytest.raises(PredictionsError, match=r"columns label_cgn"):
        validate_predictions(_table().drop(columns="label_cgn"), PAPER)
    with pytest.raises(PredictionsError, match=r"outside the taxonomy .*: probability_x"):
        validate_predictions(_table().assign(probability_x=0.0), PAPER)


@pytest.mark.parametrize(
    ("column", "cell"), [("probability_cgn", "high"), ("label_cgn", "yes"), ("image_id", "")]
)
def test_text_where_a_number_should_be_is_an_error_that_names_the_file(
    tmp_path: Path, column: str, cell: str
) -> None:
    _changed(column, 1, cell).to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(PredictionsError, match=r"p\.csv: "):
        read_predictions(tmp_path / "p.csv", PAPER)


def test_a_file_that_is_missing_empty_or_binary_is_named(tmp_path: Path) -> None:
    for name, content in (("none.csv", None), ("empty.csv", b""), ("bin.csv", b"\xff\xfe\x00\x80")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PredictionsError, match=name):
            read_predictions(tmp_path / name, PAPER)
