"""The same facts in every format of a report."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from glomerulab.cases.case import Case, build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.csv_tables import write_images_csv, write_results_csv
from glomerulab.reports.case.dicom_sr import write_case_sr
from glomerulab.reports.case.fhir import write_case_fhir
from glomerulab.reports.case.geojson import render_case_geojson
from glomerulab.reports.case.html import write_case_html
from glomerulab.reports.case.pdf import _draw_marks, write_case_pdf
from glomerulab.reports.case.pictures import MapMark, slide_map
from glomerulab.reports.case.view import case_view
from tests.support.cases import case_folder, one_call, write_case

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


def test_what_is_to_be_reviewed_has_the_same_sign_in_every_format(tmp_path: Path) -> None:
    """Dashed rings on both maps, a reason beside the picture, and a field in every file."""
    case_folder(tmp_path / "case")
    folder = tmp_path / "case"
    case = build_cases(read_case_folder(folder))[0]
    view = case_view(case, "en")
    wanted = {one.number for one in view.images if one.review_reasons}
    assert wanted
    assert len(wanted) < len(view.images)
    html = text_of(case, folder, "html")
    marks = re.findall(r'<a href="#image-(\d+)" data-number.*?</a>', html, re.DOTALL)
    dashed = re.findall(
        r'<a href="#image-(\d+)" data-number(?:(?!</a>).)*?stroke-dasharray', html, re.DOTALL
    )
    assert len(marks) == len(view.images)
    assert {int(number) for number in dashed} == wanted
    assert {
        int(one)
        for one in re.findall(r'id="image-(\d+)"(?:(?!<li id).)*?class="look"', html, re.DOTALL)
    } == wanted
    for slide in case.slides:
        mapped = slide_map(slide, view.images, folder)
        picture = Image.new("RGB", (1000, 1000), "#777777")
        _draw_marks(picture, mapped)
        for mark in mapped.marks:
            share = _drawn_share(picture, mark)
            assert (share < 0.75) == (mark.number in wanted), (mark.number, share)
    by_name = {one.call.image_id: one.number for one in view.images}
    features = [
        feature["properties"]
        for slide in case.slides
        for feature in json.loads(render_case_geojson(case, slide))["features"]
    ]
    names = {one.call.region_id: one.number for one in view.images}
    named = {names[one["name"]] for one in features if "refer" in one["metadata"]}
    assert named == wanted
    rows = pd.read_csv(_images_csv(case, folder), keep_default_na=False)
    assert {by_name[row.image_id] for row in rows.itertuples() if row.refer} == wanted
    assert text_of(case, folder, "sr").count("Needs review") >= len(wanted)
    assert f"{len(wanted)} glomeruli need review" in text_of(case, folder, "fhir")
    legend = dict(view.legend)
    for group, colour in legend.items():
        assert f'<span class="dot" style="background: {colour}"></span>{group}' in html
    for one in features:
        if "classification" in one:
            colour = "#" + bytes(one["classification"]["color"]).hex().upper()
            assert colour in legend.values()


def _drawn_share(picture: Image.Image, mark: MapMark) -> float:
    """The share of a ring's points that have its colour."""
    pixels = np.asarray(picture, dtype=np.int16)
    ring = [*mark.outline, mark.outline[0]]
    points = [
        (x + (u - x) * part, y + (v - y) * part)
        for (x, y), (u, v) in pairwise(ring)
        for part in np.linspace(0, 1, 60)
    ]
    near = [pixels[round(y), round(x)] for x, y in points]
    return float(np.mean([np.abs(one - ImageColor.getrgb(mark.colour)).max() < 40 for one in near]))


def _images_csv(case: Case, folder: Path) -> Path:
    path = folder / "images.csv"
    write_images_csv(case, path)
    return path
