from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cases.case_folder import (
    FailureFacts,
    SlideFacts,
    outline_text,
    read_case_folder,
    write_case_folder,
)
from glomerulab.errors import PredictionsError
from tests.support.cases import one_call, write_case


def test_calls_come_back_as_written(tmp_path: Path) -> None:
    calls = [
        one_call("a", "cgn", either="normal"),
        one_call("007", "normal", reasons=("out_of_focus", "stain_unseen")),
    ]
    write_case(tmp_path, calls)
    assert read_case_folder(tmp_path).calls == tuple(calls)


def test_large_coordinates_keep_their_digits() -> None:
    assert outline_text([(123456.75, 98765.0)]) == "123456.8 98765"


def test_a_folder_without_case_json_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="glomerulab predict"):
        read_case_folder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",present,", ",certain,", "'certain'"),
        ("uncertain,", "strange,", "'strange'"),
        ("state_cgn", "state_x", "state_cgn"),
    ],
)
def test_a_damaged_table_names_what_is_wrong(tmp_path, old, new, message) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "fsg", either="normal")])
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PredictionsError, match=message):
        read_case_folder(tmp_path)


def _with_cell(folder: Path, column: str, cell: str) -> None:
    """Put a cell into the second row of a table."""
    table = pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)
    if column not in table:
        table[column] = "0"
    table.loc[1, column] = cell
    table.to_csv(folder / "predictions.csv", index=False)


@pytest.mark.parametrize("column", ["called_cgn", "called_fsg", "proposed"])
@pytest.mark.parametrize("cell", ["yes", "TRUE", "", "2", "0.5", "nan"])
def test_a_flag_that_is_neither_1_nor_0_is_refused(tmp_path, column, cell) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    _with_cell(tmp_path, column, cell)
    with pytest.raises(PredictionsError, match=rf"line 3: {column} .*must be 1 or 0.*predict"):
        read_case_folder(tmp_path)


def test_flags_written_as_fractions_are_read(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    for column, cell in (("called_cgn", "1.0"), ("called_fsg", "0.0"), ("proposed", "1.0")):
        _with_cell(tmp_path, column, cell)
    second = read_case_folder(tmp_path, accept_edits=True).calls[1]
    assert second.called == {"cgn"}
    assert second.is_proposed


@pytest.mark.parametrize(("column", "cell", "n"), [("called_cgn", "0", 0), ("called_fsg", "1", 2)])
def test_a_softmax_model_calls_exactly_one_label(tmp_path, column, cell, n) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    _with_cell(tmp_path, column, cell)
    with pytest.raises(PredictionsError, match=rf"line 3: called_\*: {n} labels are 1"):
        read_case_folder(tmp_path)


@pytest.mark.parametrize("cell", ["", "maybe"])
def test_an_unknown_state_names_its_column(tmp_path, cell) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    _with_cell(tmp_path, "state_fsg", cell)
    with pytest.raises(PredictionsError, match=r"line 3: state_fsg.*present, absent, either"):
        read_case_folder(tmp_path)


@pytest.mark.parametrize("cell", ["nan", "inf", "", "1.2", "-0.1", "x"])
def test_an_invalid_probability_is_refused(tmp_path, cell) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")], head="sigmoid")
    _with_cell(tmp_path, "probability_cgn", cell)
    with pytest.raises(PredictionsError, match="line 3, image 'b'"):
        read_case_folder(tmp_path)


def test_an_incomplete_box_is_refused(tmp_path) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    _with_cell(tmp_path, "x", "")
    with pytest.raises(PredictionsError, match=r"line 3: .*width and height"):
        read_case_folder(tmp_path)


def test_a_size_without_a_place_is_that_of_a_crop_without_a_slide(tmp_path) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    for column in ("x", "y"):
        _with_cell(tmp_path, column, "")
    assert read_case_folder(tmp_path, accept_edits=True).calls[1].box is None


@pytest.mark.parametrize("column", ["x", "state_cgn", "called_cgn", "probability_cgn"])
def test_what_the_reader_refuses_is_not_written(tmp_path, column) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "cgn")])
    facts = read_case_folder(tmp_path).facts
    before = (tmp_path / "predictions.csv").read_bytes()
    table = pd.read_csv(tmp_path / "predictions.csv", dtype=object)
    table.loc[1, column] = None
    with pytest.raises(PredictionsError, match="line 3"):
        write_case_folder(tmp_path, facts, table)
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_a_slide_without_patient_is_a_case_of_its_own(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("a"), one_call("b", patient=None, slide="s9")])
    assert list(read_case_folder(tmp_path).patients()) == ["p1", "s9"]


def test_a_patient_with_only_failures_is_a_case(tmp_path: Path) -> None:
    lost = (
        FailureFacts(case="p2", slide_id="s7", name=""),
        FailureFacts(case="p1", slide_id="s1", name="g"),
    )
    folder = read_case_folder(write_case(tmp_path, [one_call("a")]))
    folder = replace(folder, facts=folder.facts.model_copy(update={"failures": lost}))
    assert {name: len(calls) for name, calls in folder.patients().items()} == {"p1": 1, "p2": 0}


def test_a_slide_without_calls_is_a_case_of_its_patient(tmp_path: Path) -> None:
    slides = [
        SlideFacts(slide_id=name, file_name=f"{name}.svs", patient_id=who, width=9, height=9)
        for name, who in (("s1", "p1"), ("s2", "p2"), ("s3", None))
    ]
    folder = read_case_folder(write_case(tmp_path, [one_call("a", slide="s1")], slides=slides))
    assert {name: len(found) for name, found in folder.patients().items()} == {
        "p1": 1,
        "p2": 0,
        "s3": 0,
    }
