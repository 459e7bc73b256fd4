from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.case_folder import Unjudged, outline_text, read_case_folder
from glomerulab.errors import PredictionsError
from tests.cases import one_call, write_case


def test_calls_come_back_as_written(tmp_path: Path) -> None:
    calls = [
        one_call("a", "cgn", either="normal"),
        one_call("007", "normal", reasons=("out_of_focus", "stain_unseen")),
    ]
    write_case(tmp_path, calls)
    assert read_case_folder(tmp_path).calls == tuple(calls)


def test_large_coordinates_keep_their_digits() -> None:
    assert outline_text([(123456.75, 98765.0)]) == "123456.8 98765"


def test_another_folder_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match="glomerulab predict"):
        read_case_folder(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",present,", ",certain,", "unknown word 'certain'"),
        ("uncertain,", "strange,", "unknown word 'strange'"),
        ("state_cgn", "state_x", "missing column"),
    ],
)
def test_a_damaged_table_names_what_is_wrong(tmp_path, old, new, message) -> None:
    write_case(tmp_path, [one_call("a", "cgn"), one_call("b", "fsg", either="normal")])
    path = tmp_path / "predictions.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PredictionsError, match=message):
        read_case_folder(tmp_path)


def test_patients_are_cases_and_a_slide_without_one_is_its_own(tmp_path: Path) -> None:
    write_case(tmp_path, [one_call("a"), one_call("b", patient=None, slide="s9")])
    assert list(read_case_folder(tmp_path).patients()) == ["p1", "s9"]


def test_a_case_of_which_nothing_could_be_judged_is_a_case_all_the_same(tmp_path: Path) -> None:
    lost = (
        Unjudged(case="p2", slide_id="s7", name=""),
        Unjudged(case="p1", slide_id="s1", name="g"),
    )
    folder = read_case_folder(write_case(tmp_path, [one_call("a")]))
    folder = replace(folder, facts=folder.facts.model_copy(update={"unjudged": lost}))
    assert {name: len(calls) for name, calls in folder.patients().items()} == {"p1": 1, "p2": 0}
