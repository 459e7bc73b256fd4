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


def test_images_have_the_correction_and_the_models_call(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="A, B", reason='a "tubule"')
    write_images_csv(build_cases(folder)[0], tmp_path / "i.csv")
    found = {row["image_id"]: row for row in rows(tmp_path / "i.csv")}
    assert found["b"]["image_shows"] == "not_a_glomerulus"
    assert found["b"]["called_by_model"] == "mspgn"
    assert (found["b"]["changed_by"], found["b"]["reason_of_change"]) == ("A, B", 'a "tubule"')
    assert found["c"]["refer"] == "out_of_distribution out_of_focus"
    assert {row["note"] for row in found.values()} == {"research use only"}


def test_results_have_counts_grades_and_items_without_a_grade(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    assert found["count", "normal"]["n_with"] == "2"
    assert found["mest_c_like", "C"]["grade"] == "C1"
    assert "no label" in found["mest_c_like", "E"]["not_assessed"]
    assert found["mest_c_like", "E"]["grade"] == ""


def test_results_begin_with_warnings_and_failures(doubtful, tmp_path) -> None:
    write_results_csv(build_cases(doubtful)[0], tmp_path / "r.csv")
    found = rows(tmp_path / "r.csv")
    found_row = {row["item"]: row["note"] for row in found if row["rule_set"] == "warning"}
    assert "1 of 6 regions were proposed by a detector" in found_row["proposed"]
    assert "Not counted: s1 g 9." in found_row["not_judged"]
    assert found_row["note"].endswith("Crops were enlarged.")
    assert [row["item"] for row in found if row["rule_set"] == "not_judged"] == ["s1 g 9"]
    assert all(row["note"].startswith("research use only") for row in found)
    assert found[0]["rule_set"] == "warning"


def test_images_of_one_glomerulus_have_its_number_and_labels(tmp_path) -> None:
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


def test_results_warn_of_too_few_glomeruli(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row["note"] for row in rows(tmp_path / "r.csv")}
    assert "Only 5 of the 8 glomeruli that the source requires." in found["mest_c_like", "C"]
    assert "Only" not in found["adequacy", "adequacy"]


def test_results_name_each_count_of_a_mixed_class(tmp_path) -> None:
    calls = case((4, "normal"), (3, "cgn"), (2, "gs"), (1, "fsg"), taxonomy=WITH_GLOBAL)
    write_case(tmp_path, calls, taxonomy=WITH_GLOBAL)
    write_results_csv(build_cases(read_case_folder(tmp_path))[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    mixed = found["berden", "class"]
    assert (mixed["grade"], mixed["n_with"], mixed["n_of"]) == ("mixed", "", "10")
    assert mixed["counted"] == "Global sclerosis: 2; Normal glomerulus: 4; Cellular crescent: 3"
    assert found["mest_c_like", "C"]["n_with"] == "3"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_no_text_is_run_as_a_formula(folder, tmp_path, start) -> None:
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


def test_tables_begin_with_a_byte_order_mark(folder, tmp_path) -> None:
    first = build_cases(folder)[0]
    for write in (write_images_csv, write_results_csv):
        write(first, tmp_path / "x.csv")
        assert (tmp_path / "x.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_results_have_the_number_of_glomeruli_and_its_range(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    found_row = found["glomeruli", "all"]
    assert (found_row["n_with"], found_row["n_of"], found_row["possible"]) == ("5", "5", "4 to 5")


def test_no_range_is_read_as_a_date(folder, tmp_path) -> None:
    write_results_csv(build_cases(folder)[0], tmp_path / "r.csv")
    counts = [row["possible"] for row in rows(tmp_path / "r.csv") if row["rule_set"] == "count"]
    assert counts == ["2 to 4", "0 to 2", "0 to 1", "1 to 2"]


def test_a_certain_count_is_one_number(folder, tmp_path) -> None:
    for call in folder.calls:  # a correction is certain
        add_correction(folder, call.image_id, labels=["cgn"], by="A", reason="x")
    write_results_csv(build_cases(read_case_folder(folder.folder))[0], tmp_path / "r.csv")
    counts = [row["possible"] for row in rows(tmp_path / "r.csv") if row["rule_set"] == "count"]
    assert [text for text in counts if not text.isdecimal()] == []
