"""A case folder knows what it held: whatever changes a count or a page is seen."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder, rewrite_facts
from glomerulab.errors import PredictionsError
from glomerulab.reports.case.warnings import case_warnings


def _table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)


def _write(folder: Path, table: pd.DataFrame, **options: object) -> None:
    table.to_csv(folder / "predictions.csv", index=False, **options)


def _shorten(folder: Path) -> None:
    _write(folder, _table(folder).iloc[:-3])


def _double(folder: Path) -> None:
    table = _table(folder)
    _write(folder, pd.concat([table, table.iloc[[0]].assign(image_id="again")]))


def _cell(column: str, value: str):
    def change(folder: Path) -> None:
        table = _table(folder)
        table.loc[0, column] = value
        _write(folder, table)

    return change


def _flip(folder: Path) -> None:
    table = _table(folder)
    called = [name for name in table if name.startswith("called_")]
    first = table.loc[0, called]
    table.loc[0, called] = [*first[1:], first.iloc[0]]
    _write(folder, table)


def _other_probabilities(folder: Path) -> None:
    table = _table(folder)
    chances = [name for name in table if name.startswith("probability_")]
    table.loc[0, chances] = ["0.04", "0.03", "0.03", "0.9"]
    _write(folder, table)


def _swap_crops(folder: Path) -> None:
    first, second = folder / "crop0.png", folder / "crop1.png"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _other_map(folder: Path) -> None:
    shutil.copy(folder / "s1.jpg", folder / "s2.jpg")


def _fact(name: str, value: object):
    def change(folder: Path) -> None:
        data = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        data[name] = value
        (folder / "case.json").write_text(json.dumps(data), encoding="utf-8")

    return change


def _threshold(folder: Path) -> None:
    data = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    data["model"]["temperature"] = 9.0
    (folder / "case.json").write_text(json.dumps(data), encoding="utf-8")


def _other_number_of_rows(folder: Path) -> None:
    data = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    data["record"]["n_rows"] -= 1
    (folder / "case.json").write_text(json.dumps(data), encoding="utf-8")


CHANGES = {
    "missing rows": (_shorten, "3 rows are missing"),
    "a doubled row": (_double, "1 row was added .*'again' in line 9"),
    "a flipped call": (_flip, "1 call does not follow from its probabilities .*line 2"),
    "other probabilities": (_other_probabilities, "1 row was changed"),
    "another patient": (_cell("patient_id", "p7"), "1 row is missing.*1 row was added"),
    "another slide": (_cell("slide_id", "s9"), "1 row was changed"),
    "no referral": (_cell("reasons", "no_tissue"), "1 row was changed"),
    "another outline": (_cell("outline", "1 2, 3 4, 5 9"), "1 row was changed"),
    "swapped crops": (_swap_crops, "2 pictures were changed .*crop0.png"),
    "another map": (_other_map, "1 picture was changed .*s2.jpg"),
    "no failures": (_fact("unjudged", [{"case": "p1", "slide_id": "", "name": "x"}]), "case.json"),
    "another temperature": (_threshold, "case.json was changed"),
    "another number of rows": (_other_number_of_rows, "case.json was changed"),
    "no record": (_fact("record", None), "lacks the record"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_folder_is_refused_with_file_rows_and_way_out(folder, kind) -> None:
    change, named = CHANGES[kind]
    change(folder.folder)
    with pytest.raises(PredictionsError, match=named) as caught:
        read_case_folder(folder.folder)
    assert "predict` again" in caught.value.message


@pytest.mark.parametrize("kind", [one for one in CHANGES if one != "no record"])
def test_an_accepted_change_is_the_first_warning_of_its_case_alone(folder, kind) -> None:
    CHANGES[kind][0](folder.folder)
    cases = build_cases(read_case_folder(folder.folder, accept_edits=True), [])
    first = [case_warnings(case, "en")[0] for case in cases]
    edited = [one for one in first if one.kind == "edited"]
    assert edited
    assert all(one.is_severe for one in edited)
    other = next(case for case in cases if case.patient == "p/2")
    if kind in {"a flipped call", "swapped crops", "another map", "another outline"}:
        assert case_warnings(other, "en")[0].kind != "edited"


def _as_excel(folder: Path) -> None:
    """As a spreadsheet saves a table: fewer digits, semicolons, a byte order mark."""
    table = pd.read_csv(folder / "predictions.csv", dtype={"image_id": str, "region_id": str})
    table.to_csv(
        folder / "predictions.csv",
        index=False,
        sep=";",
        float_format="%.9g",
        encoding="utf-8-sig",
        lineterminator="\r\n",
    )


def _sorted(folder: Path) -> None:
    _write(folder, _table(folder).iloc[::-1])


@pytest.mark.parametrize("change", [_as_excel, _sorted])
def test_a_table_saved_again_with_the_same_content_is_read_and_told(folder, change) -> None:
    change(folder.folder)
    again = read_case_folder(folder.folder)
    assert [one.kind for one in again.edits] == ["saved"]
    kinds = [one.kind for one in case_warnings(build_cases(again, [])[0], "en")]
    assert "saved_again" in kinds
    assert "edited" not in kinds


def test_ids_that_a_spreadsheet_rewrote_are_explained(folder) -> None:
    _cell("image_id", "7")(folder.folder)
    with pytest.raises(PredictionsError, match="spreadsheet may have rewritten ids"):
        read_case_folder(folder.folder)


def test_texts_of_the_facts_can_be_rewritten_by_the_program(folder) -> None:
    rewrite_facts(folder.folder, lambda text: text.replace("s9.svs", "client.svs"))
    again = read_case_folder(folder.folder)
    assert (again.edits, again.facts.slides[-1].file_name) == ((), "client.svs")


def test_a_picture_that_is_no_longer_there_is_no_change(folder) -> None:
    (folder.folder / "crop0.png").unlink()
    assert read_case_folder(folder.folder).edits == ()
