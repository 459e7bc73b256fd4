import csv
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import CaseFolder
from glomerulab.cli.main import app
from glomerulab.errors import GlomerulabError
from glomerulab.inference.outlines import segmenter_notes
from glomerulab.reports.case.csv_tables import write_results_csv
from glomerulab.reports.case.dicom_sr import write_case_sr
from glomerulab.reports.case.fhir import observations, write_case_fhir
from glomerulab.reports.case.html import render_case_html
from glomerulab.reports.case.pdf import write_case_pdf
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.structures.summary import Range
from tests.support.outlines import outlined_slide, write_outlines
from tests.support.segmenters import ByColour
from tests.support.sr_groups import groups_of, numbers_of, question_of, values_of


@pytest.fixture
def outlines(folder: CaseFolder, tmp_path: Path) -> Path:
    slides = sorted({call.slide_id for call in folder.calls} - {""})
    write_outlines(
        tmp_path / "outlines",
        [outlined_slide(one, fibrosis=Range(0.22, 0.3, 0.55), atrophy=0.1) for one in slides],
    )
    return tmp_path / "outlines"


@pytest.fixture
def outlined(folder: CaseFolder, outlines: Path) -> Case:
    return build_cases(folder, structures=outlines)[0]


def test_the_page_shows_measures_and_every_possible_t(folder, outlined) -> None:
    view = case_view(outlined, "en")
    tissue = {row.name: row.value for row in view.tissue}
    assert tissue["Interstitial fibrosis, share of the cortex"] == "30.0 % (22.0 – 55.0 %)"
    (mest,) = (rule for rule in view.rules if "MEST-C" in rule.name)
    (t,) = (row for row in mest.rows if row.item == "T")
    assert (t.grade, t.possible) == ("T1", "T0, T1 or T2")
    assert "outlined slide" in t.labels
    page = render_case_html(outlined, folder.folder)
    assert "Cortex and tissue" in page
    assert "30.0 % (22.0 – 55.0 %)" in page


def test_doubts_about_the_outlines_are_among_the_warnings(folder, tmp_path) -> None:
    slides = sorted({call.slide_id for call in folder.calls} - {""})
    note = "The segmenter was trained on no slide stained PASM."
    write_outlines(
        tmp_path / "doubtful", [replace(outlined_slide(one), notes=(note,)) for one in slides]
    )
    case = build_cases(folder, structures=tmp_path / "doubtful")[0]
    told = [one.text for one in case_warnings(case, "en")]
    assert told.count(note) == 1
    chinese = [one.text for one in case_warnings(case, "zh")]
    assert note not in chinese
    assert any("PASM" in text for text in chinese)


def test_without_outlines_the_page_has_no_such_section(folder) -> None:
    case = build_cases(folder)[0]
    assert case_view(case, "en").tissue == ()
    assert "Cortex and tissue" not in render_case_html(case, folder.folder)


def test_the_chinese_page_names_the_measures_in_chinese(outlined) -> None:
    view = case_view(outlined, "zh")
    assert view.tissue[0].name == "皮质面积"
    assert not any(" of " in row.name or "share" in row.name for row in view.tissue)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs pdftotext (poppler-utils)")
def test_the_pdf_shows_the_measures(folder, outlined, tmp_path) -> None:
    write_case_pdf(outlined, folder.folder, tmp_path / "a.pdf")
    text = subprocess.run(
        ["pdftotext", "-layout", str(tmp_path / "a.pdf"), "-"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Cortex and tissue" in text
    assert "30.0 % (22.0 – 55.0 %)" in text


def test_the_table_has_a_row_per_measure_and_the_grades(outlined, tmp_path) -> None:
    write_results_csv(outlined, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {(row["rule_set"], row["item"]): row for row in csv.DictReader(file)}
    fibrosis = rows["structures", "fibrosis"]
    assert (fibrosis["value"], fibrosis["low"], fibrosis["high"]) == ("0.3", "0.22", "0.55")
    t = rows["mest_c_like", "T"]
    assert (t["grade"], t["possible"], t["n_of"], t["value"]) == ("T1", "T2; T1; T0", "", "0.3")
    assert rows["mest_c_like", "C"]["value"] == ""


def test_fhir_has_an_observation_per_measure(outlined, tmp_path) -> None:
    found = {one["code"]["text"]: one for one in observations(outlined)}
    fibrosis = found["Interstitial fibrosis, share of the cortex"]
    assert fibrosis["valueQuantity"]["value"] == 30.0
    assert [one["valueQuantity"]["value"] for one in fibrosis["component"]] == [22.0, 55.0]
    (t,) = (one for name, one in found.items() if "Tubular atrophy and interstitial" in name)
    assert t["valueCodeableConcept"]["text"] == "T1"
    write_case_fhir(outlined, tmp_path / "case.fhir.json")  # validates


def test_the_sr_has_the_share_behind_a_grade(outlined, tmp_path) -> None:
    write_case_sr(outlined, tmp_path / "case.dcm")
    groups = groups_of(tmp_path / "case.dcm")
    t = question_of(groups, "MEST-C-like (Oxford) 1.0: Tubular")
    assert values_of(t)["Grade"] == ["T1"]
    assert sorted(numbers_of(t).values()) == [22.0, 30.0, 55.0]


def test_report_takes_the_folder_of_segment(folder, outlines, tmp_path) -> None:
    arguments = ["report", str(folder.folder), "--format", "csv", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--structures", str(outlines)])
    assert result.exit_code == 0, result.output
    assert "mest_c_like,1.0,T,T1" in next((tmp_path / "out").glob("*.results.csv")).read_text()
    result = CliRunner().invoke(app, [*arguments, "--structures", str(tmp_path)])
    assert isinstance(result.exception, GlomerulabError)
    assert "glomerulab segment" in str(result.exception)


def test_what_the_segmenter_hardly_finds_is_not_assessed_on_every_page(folder, tmp_path) -> None:
    slides = sorted({call.slide_id for call in folder.calls} - {""})
    hardly = {"atrophic_tubule": 0.0, "artery": 0.05}
    write_outlines(tmp_path / "o", [outlined_slide(one, hardly_found=hardly) for one in slides])
    case = build_cases(folder, structures=tmp_path / "o")[0]
    for language in ("en", "zh"):
        view = case_view(case, language)
        rows = {row.item: row for rule in view.rules for row in rule.not_assessed}
        for item, score in (("T", "0.00"), ("arteries", "0.05")):
            assert "net" in rows[item].reason
            assert score in rows[item].reason
    assert "atrophic tubule (Dice 0.00)" in render_case_html(case, folder.folder)
    write_results_csv(case, tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as file:
        found = {(row["rule_set"], row["item"]): row for row in csv.DictReader(file)}
    assert found["mest_c_like", "T"]["grade"] == ""
    assert found["structures", "arteries"]["value"] == ""


def test_scores_and_names_in_notes_are_in_chinese(folder, tmp_path) -> None:
    card = ByColour(dice={"glomerulus": 0.04, "cortex": 0.1}).card.model_copy(
        update={"structures": ("cortex", "glomerulus", "tuft", "fibrosis")}
    )
    scores = (
        "On images that the segmenter never saw (groups: 3): Glomerulus Dice 0.04 (95 % interval "
        "0.00 to 0.10); Glomerulus: 1 of 9 found, 1 of 4 proposals right; right is an overlap "
        "(IoU) of at least 0.5."
    )
    notes = (scores, *segmenter_notes(card, "net"))
    slides = sorted({call.slide_id for call in folder.calls} - {""})
    write_outlines(tmp_path / "o", [replace(outlined_slide(one), notes=notes) for one in slides])
    case = build_cases(folder, structures=tmp_path / "o")[0]
    told = [one.text for one in case_warnings(case, "zh")]
    about = [text for text in told if "0.04" in text or "net" in text]
    assert len(about) == 3
    for text in about:
        words = re.findall(r"[A-Za-z]{2,}", text)
        assert set(words) <= {"Dice", "IoU", "net"}
    assert [one.text for one in case_warnings(case, "en") if one.text in notes] == list(notes)
