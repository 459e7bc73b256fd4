"""The same facts in every format of a report."""

import shutil
import subprocess
from pathlib import Path

import pytest

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.csv_tables import write_results_csv
from glomerulab.reports.case.dicom_sr import write_case_sr
from glomerulab.reports.case.fhir import write_case_fhir
from glomerulab.reports.case.html import write_case_html
from glomerulab.reports.case.pdf import write_case_pdf
from tests.support.cases import one_call, write_case

GLASS = ("no_tissue", "too_small", "no_glomerulus")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven glomeruli, and three regions that are none."""
    calls = [one_call(f"g{n}", "cgn") for n in range(7)]
    calls += [one_call(f"x-{reason}", "normal", reasons=(reason,)) for reason in GLASS]
    return write_case(tmp_path / "case", calls)


def only_case(folder: Path) -> Case:
    (case,) = build_cases(read_case_folder(folder))
    return case


def text_of(case: Case, folder: Path, name: str) -> str:
    path = folder / f"report.{name}"
    if name == "html":
        write_case_html(case, folder, path)
    elif name == "fhir":
        write_case_fhir(case, path)
    elif name == "csv":
        write_results_csv(case, path)
    elif name == "sr":
        write_case_sr(case, path)
        return path.read_bytes().decode("latin-1")
    else:
        if shutil.which("pdftotext") is None:
            pytest.skip("needs pdftotext (poppler-utils)")
        write_case_pdf(case, folder, path)
        read = ["pdftotext", "-layout", str(path), "-"]
        found = subprocess.run(read, capture_output=True, text=True, check=True)
        return " ".join(found.stdout.split())
    return path.read_text("utf-8")


def test_what_is_not_assessed_is_neither_called_nor_counted(folder: Path) -> None:
    case = only_case(folder)
    assert case.summary.n_glomeruli == 7
    assert case.summary.n_not_assessed == 3
    assert case.summary.n_range == (7, 10)
    assert [call.called for call in case.calls[7:]] == [None] * 3


def test_a_persons_label_counts_it_and_takes_it_out_of_the_group(folder: Path) -> None:
    add_correction(
        read_case_folder(folder), "x-no_glomerulus", labels=["cgn"], by="Dr A", reason="a crescent"
    )
    add_correction(
        read_case_folder(folder),
        "x-no_tissue",
        labels=["not_a_glomerulus"],
        by="Dr A",
        reason="glass",
    )
    case = only_case(folder)
    assert case.summary.n_glomeruli == 8
    assert case.summary.n_not_assessed == 1
    assert case.summary.n_range == (8, 9)
    assert "x-no_tissue" in case.confirmed_images


@pytest.mark.parametrize("name", ["html", "pdf", "csv", "fhir", "sr"])
def test_every_format_tells_what_is_not_assessed_and_one_label_a_glomerulus(
    folder: Path, name: str
) -> None:
    text = text_of(only_case(folder), folder, name)
    assert "3 regions are not assessed as glomeruli" in text
    assert "The model names one label per glomerulus" in text


@pytest.mark.parametrize("name", ["html", "pdf", "csv", "fhir", "sr"])
def test_every_format_explains_labels_that_add_up_to_more_than_the_glomeruli(
    folder: Path, name: str
) -> None:
    add_correction(read_case_folder(folder), "g1", labels=["cgn", "fsg"], by="Dr A", reason="both")
    text = text_of(only_case(folder), folder, name)
    assert "The numbers of the labels do not add up to that of the glomeruli" in text
