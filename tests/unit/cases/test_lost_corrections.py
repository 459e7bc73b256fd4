"""Corrections that were acknowledged and are gone from overrides.csv are noticed."""

import csv
import io
import re

import pytest

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import (
    CORRECTIONS_FILE,
    CorrectionRow,
    add_correction,
    import_corrections,
    submit_correction,
)
from glomerulab.errors import PredictionsError
from glomerulab.reports.case.warnings import case_warnings
from tests.support.cases import case_folder

LATER = CorrectionRow("2026-02-02T00:00:00+00:00", "B", "d", "fsg", "seen")


@pytest.fixture
def corrected(tmp_path):
    folder = case_folder(tmp_path / "predictions")
    for image, label in (("a1", "normal"), ("z", "cgn"), ("a1", "fsg"), ("b", "normal")):
        add_correction(folder, image, labels=[label], by="Dr Wu", reason="seen")
    return folder.folder


def lines(folder) -> list[str]:
    return (folder / CORRECTIONS_FILE).read_text().splitlines(keepends=True)


def rewrite(folder, kept: list[str]) -> None:
    (folder / CORRECTIONS_FILE).write_text("".join(kept))


EDITS = {
    "the first": (lambda all_: [all_[0], *all_[2:]], {"a1"}),
    "the last": (lambda all_: all_[:-1], {"b"}),
    "of another patient": (lambda all_: [*all_[:2], *all_[3:]], {"z"}),
    "all": (lambda all_: all_[:1], {"a1", "z", "b"}),
    "everything": (lambda _all: [], {"a1", "z", "b"}),
    "a changed label": (lambda all_: [one.replace('"fsg"', '"cgn"') for one in all_], {"a1"}),
    "a changed name": (lambda all_: [*all_[:-1], all_[-1].replace("Wu", "Li")], {"b"}),
}


@pytest.mark.parametrize("kind", EDITS)
def test_lost_rows_are_refused_and_named(corrected, kind) -> None:
    change, images = EDITS[kind]
    rewrite(corrected, change(lines(corrected)))
    left = (corrected / CORRECTIONS_FILE).read_bytes()
    folder = read_case_folder(corrected)
    for use in (
        lambda: build_cases(folder, []),
        lambda: add_correction(folder, "d", labels=["fsg"], by="x", reason="y"),
        lambda: submit_correction(folder, LATER, n_seen=0),
        lambda: import_corrections(folder, export(corrected)),
    ):
        with pytest.raises(PredictionsError) as caught:
            use()
        assert caught.value.where == str(corrected / CORRECTIONS_FILE)
        assert all(repr(image) in str(caught.value) for image in images)
        assert "--accept-edits" in str(caught.value)
    assert (corrected / CORRECTIONS_FILE).read_bytes() == left


def export(folder):
    path = folder.parent / "new.csv"
    path.write_text(
        "time,by,image_id,labels,reason\n2026-02-02T00:00:00+00:00,B,d,fsg,seen\n", "utf-8"
    )
    return path


@pytest.mark.parametrize("kind", EDITS)
def test_accepted_they_are_told_first_in_the_report_of_their_case(corrected, kind) -> None:
    change, images = EDITS[kind]
    rewrite(corrected, change(lines(corrected)))
    cases = {
        one.patient: case_warnings(one, "en")[0]
        for one in build_cases(read_case_folder(corrected, accept_edits=True), [])
    }
    for image, patient in (("a1", "p1"), ("b", "p1"), ("z", "p/2")):
        is_told = cases[patient].kind == "edited" and bool(
            re.search(rf"\b{image}\b", cases[patient].text)
        )
        assert is_told == (image in images)


def test_they_stay_told_when_a_correction_is_added(corrected) -> None:
    rewrite(corrected, lines(corrected)[:-1])
    folder = read_case_folder(corrected, accept_edits=True)
    add_correction(folder, "d", labels=["fsg"], by="x", reason="y")
    assert "b" in case_warnings(build_cases(folder, [])[0], "en")[0].text
    with pytest.raises(PredictionsError, match="'b'"):
        build_cases(read_case_folder(corrected), [])


def test_another_order_is_seen_since_the_last_one_counts(corrected) -> None:
    header, first, second, third, *rest = lines(corrected)
    rewrite(corrected, [header, third, second, first, *rest])
    with pytest.raises(PredictionsError, match="order"):
        build_cases(read_case_folder(corrected), [])
    case = build_cases(read_case_folder(corrected, accept_edits=True), [])[0]
    assert case_warnings(case, "en")[0].kind == "edited"


def test_an_image_of_no_case_is_not_named_in_reports(corrected) -> None:
    path = corrected / "overrides.record.jsonl"
    path.write_text(path.read_text().replace('"b"', '"elsewhere"'))
    rewrite(corrected, lines(corrected)[:-1])
    for case in build_cases(read_case_folder(corrected, accept_edits=True), []):
        first = case_warnings(case, "en")[0]
        assert first.kind == "edited"
        assert "elsewhere" not in first.text


def test_a_spreadsheet_and_rows_of_a_person_do_no_harm(corrected) -> None:
    rows = list(csv.reader(io.StringIO("".join(lines(corrected)))))
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([*rows, list(vars(LATER).values())])
    path = corrected / CORRECTIONS_FILE
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    folder = read_case_folder(corrected)
    assert "d" in build_cases(folder, [])[0].latest_corrections
    add_correction(folder, "c", labels=["fsg"], by="x", reason="y")
    rewrite(corrected, [one for one in lines(corrected) if ",d," not in one])
    with pytest.raises(PredictionsError, match="'d'"):  # since then it is acknowledged
        build_cases(folder, [])


def test_a_file_without_a_record_is_read_and_has_one_from_the_next_correction_on(corrected) -> None:
    (corrected / "overrides.record.jsonl").unlink()
    rewrite(corrected, lines(corrected)[:-2])
    folder = read_case_folder(corrected)
    assert build_cases(folder, [])
    add_correction(folder, "d", labels=["fsg"], by="x", reason="y")
    rewrite(corrected, lines(corrected)[:1] + lines(corrected)[2:])
    with pytest.raises(PredictionsError, match="'a1'"):
        build_cases(folder, [])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b'["0123", "b"]\n', b"[]\n", b"1\n", b'["0123456789abcdef","b"]'],
)
def test_a_damaged_record_is_refused(corrected, content) -> None:
    path = corrected / "overrides.record.jsonl"
    path.write_bytes(content)
    folder = read_case_folder(corrected, accept_edits=True)
    for use in (
        lambda: build_cases(folder, []),
        lambda: add_correction(folder, "d", labels=["fsg"], by="x", reason="y"),
    ):
        with pytest.raises(PredictionsError) as caught:
            use()
        assert caught.value.where == str(path)
