import csv
from dataclasses import replace
from pathlib import Path

import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.csv_tables import write_images_csv, write_results_csv
from tests.support.cases import WITH_GLOBAL, case, one_call, write_case


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_images_carry_what_counts_and_what_the_model_said(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="A, B", reason='a "tubule"')
    write_images_csv(build_cases(folder)[0], tmp_path / "i.csv")
    found = {row["image_id"]: row for row in rows(tmp_path / "i.csv")}
    assert found["b"]["image_shows"] == "not_a_glomerulus"
    assert found["b"]["called_by_model"] == "mspgn"
    assert (found["b"]["changed_by"], found["b"]["reason_of_change"]) == ("A, B", 'a "tubule"')
    assert found["c"]["refer"] == "out_of_distribution out_of_focus"
    assert {row["note"] for row in found.values()} == {"research use only"}


def test_results_hold_counts_grades_and_what_was_not_assessed(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    assert found["count", "normal"]["n_with"] == "2"
    assert found["mest_c_like", "C"]["grade"] == "C1"
    assert "no label" in found["mest_c_like", "E"]["not_assessed"]
    assert found["mest_c_like", "E"]["grade"] == ""


def test_results_begin_with_what_must_be_read_first_and_what_is_in_no_count(
    doubtful, tmp_path
) -> None:
    write_results_csv(build_cases(doubtful)[0], tmp_path / "r.csv")
    found = rows(tmp_path / "r.csv")
    told = {row["item"]: row["note"] for row in found if row["rule_set"] == "warning"}
    assert "1 of 6 regions were proposed by a detector" in told["proposed"]
    assert "In no count: s1 g 9." in told["not_judged"]
    assert told["note"].endswith("Crops were enlarged.")
    assert [row["item"] for row in found if row["rule_set"] == "not_judged"] == ["s1 g 9"]
    assert all(row["note"].startswith("research use only") for row in found)
    assert found[0]["rule_set"] == "warning"


def test_images_of_one_glomerulus_bear_its_number_and_what_it_counts_as(tmp_path) -> None:
    calls = [
        one_call("a1", "fsg", slide="s1", region="g1"),
        one_call("a2", "cgn", slide="s2", region="g1"),
        one_call("b", "normal", slide="s1"),
    ]
    write_case(tmp_path, calls, head="sigmoid")
    write_images_csv(build_cases(read_case_folder(tmp_path))[0], tmp_path / "i.csv")
    assert [
        (row["image_id"], row["glomerulus"], row["glomerulus_counts_as"], row["image_shows"])
        for row in rows(tmp_path / "i.csv")
    ] == [("a1", "1", "cgn+fsg", "fsg"), ("a2", "1", "cgn+fsg", "cgn"), ("b", "2", *["normal"] * 2)]


def test_results_say_where_the_source_asks_for_more_glomeruli(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row["note"] for row in rows(tmp_path / "r.csv")}
    assert "Only 5 of the 8 glomeruli that the source asks for." in found["mest_c_like", "C"]
    assert "Only" not in found["adequacy", "adequacy"]


def test_results_name_each_count_that_a_mixed_class_rests_on(tmp_path) -> None:
    calls = case((4, "normal"), (3, "cgn"), (2, "gs"), (1, "fsg"), taxonomy=WITH_GLOBAL)
    write_case(tmp_path, calls, taxonomy=WITH_GLOBAL)
    write_results_csv(build_cases(read_case_folder(tmp_path))[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    mixed = found["berden", "class"]
    assert (mixed["grade"], mixed["n_with"], mixed["n_of"]) == ("mixed", "", "10")
    assert mixed["counted"] == "Global sclerosis: 2; Normal glomerulus: 4; Cellular crescent: 3"
    assert found["mest_c_like", "C"]["n_with"] == "3"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_text_of_a_person_or_a_file_is_a_formula(folder, tmp_path, start) -> None:
    add_correction(folder, "b", labels=["cgn"], by="=1+1", reason=f'{start}HYPERLINK("x")')
    named = [replace(one, patient_id=f"{start}p") for one in folder.calls]
    first = build_cases(replace(folder, calls=tuple(named)))[0]
    write_images_csv(first, tmp_path / "i.csv")
    write_results_csv(first, tmp_path / "r.csv")
    found = {row["image_id"]: row for row in rows(tmp_path / "i.csv")}["b"]
    assert found["changed_by"] == "'=1+1"
    risky = tuple("=+-@\t\r＝")
    cells = [
        cell
        for name in ("i", "r")
        for row in rows(tmp_path / f"{name}.csv")
        for cell in row.values()
    ]
    assert not [cell for cell in cells if cell.startswith(risky)]


def test_spreadsheets_see_by_the_first_bytes_that_it_is_utf_8(folder, tmp_path) -> None:
    first = build_cases(folder)[0]
    for write in (write_images_csv, write_results_csv):
        write(first, tmp_path / "x.csv")
        assert (tmp_path / "x.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_results_hold_the_number_of_glomeruli_and_its_range(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    told = found["glomeruli", "all"]
    assert (told["n_with"], told["n_of"], told["possible"]) == ("5", "5", "4 to 5")


def test_no_range_of_numbers_is_a_date_for_a_spreadsheet(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    counts = [row["possible"] for row in rows(tmp_path / "r.csv") if row["rule_set"] == "count"]
    assert counts == ["2 to 4", "0 to 2", "0 to 1", "1 to 2"]
