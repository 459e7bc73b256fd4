import csv
from pathlib import Path

from glomerulab.report.add_overrides import add_override
from glomerulab.report.reported_case import reported_cases
from glomerulab.report.write_case_csv import write_images_csv, write_results_csv


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_images_carry_what_counts_and_what_the_model_said(folder, tmp_path) -> None:
    add_override(folder, "b", labels=["not_a_glomerulus"], by="A, B", reason='a "tubule"')
    write_images_csv(reported_cases(folder)[0], tmp_path / "i.csv")
    found = {row["image_id"]: row for row in rows(tmp_path / "i.csv")}
    assert found["b"]["counted_as"] == "not_a_glomerulus"
    assert found["b"]["called_by_model"] == "mspgn"
    assert (found["b"]["changed_by"], found["b"]["reason_of_change"]) == ("A, B", 'a "tubule"')
    assert found["c"]["refer"] == "out_of_distribution out_of_focus"
    assert {row["note"] for row in found.values()} == {"research use only"}


def test_results_hold_counts_grades_and_what_was_not_assessed(folder, tmp_path) -> None:
    write_results_csv(reported_cases(folder)[0], tmp_path / "r.csv")
    found = {(row["rule_set"], row["item"]): row for row in rows(tmp_path / "r.csv")}
    assert found["count", "normal"]["n_with"] == "2"
    assert found["mest_c_like", "C"]["grade"] == "C1"
    assert "no label" in found["mest_c_like", "E"]["not_assessed"]
    assert found["mest_c_like", "E"]["grade"] == ""


def test_results_begin_with_what_must_be_read_first_and_what_is_in_no_count(
    doubtful, tmp_path
) -> None:
    write_results_csv(reported_cases(doubtful)[0], tmp_path / "r.csv")
    found = rows(tmp_path / "r.csv")
    told = {row["item"]: row["note"] for row in found if row["rule_set"] == "warning"}
    assert "1 of 6 regions were proposed by a detector" in told["proposed"]
    assert "In no count: s1 g 9." in told["not_judged"]
    assert told["note"].endswith("Crops were enlarged.")
    assert [row["item"] for row in found if row["rule_set"] == "not_judged"] == ["s1 g 9"]
    assert all(row["note"].startswith("research use only") for row in found)
    assert found[0]["rule_set"] == "warning"
