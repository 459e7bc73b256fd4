import shutil
import subprocess
import time
from dataclasses import replace

import pydicom
import pytest
from highdicom.sr import ComprehensiveSR

from glomerulab.cases.case import build_cases
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.dicom_sr import case_sr, write_case_sr
from glomerulab.slides.files import DicomReference
from tests.support.sr_groups import (
    groups_of,
    images_of,
    numbers_of,
    question_of,
    texts_of,
    values_of,
)


@pytest.fixture
def path(folder, tmp_path):
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    write_case_sr(build_cases(folder)[0], tmp_path / "case.dcm")
    return tmp_path / "case.dcm"


def test_highdicom_reads_back_every_group(path) -> None:
    groups = groups_of(path)
    assert groups[0].tracking_identifier == "case p1"
    counts = numbers_of(groups[0])
    assert counts["Glomeruli in all"] == 5
    assert counts["Number of: Crescent"] == 2
    images = images_of(groups)
    assert list(images) == ["a1", "a2", "b", "c", "d", '<i>"e"</i> & 名']
    assert "Dr Li" in texts_of(images["b"][0])["Changed by a person"][0]
    tracked = {one.tracking_uid for one in images.values()}
    assert len(tracked) == counts["Glomeruli in all"]
    assert values_of(question_of(groups, "MEST-C-like (Oxford) 1.0: Cellular"))["Grade"] == ["C2"]


def test_it_is_neither_complete_nor_verified(path) -> None:
    document = pydicom.dcmread(path)
    assert document.CompletionFlag == "PARTIAL"
    assert document.VerificationFlag == "UNVERIFIED"
    assert "research use only" in document.Manufacturer
    assert document.PatientID == "p1"


@pytest.mark.parametrize("name", ["path", "of_doubts", "of_bad_names"])
def test_one_code_never_has_two_meanings(name, request) -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for item in pydicom.dcmread(request.getfixturevalue(name)).iterall():
        if item.keyword in {"ConceptCodeSequence", "ConceptNameCodeSequence"}:
            for code in item.value:
                value = code.get("CodeValue") or code.LongCodeValue
                key = (code.CodingSchemeDesignator, value)
                meanings.setdefault(key, set()).add(code.CodeMeaning)
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
@pytest.mark.parametrize("name", ["path", "of_dicom", "of_doubts", "of_nothing", "of_bad_names"])
def test_dciodvfy_finds_no_error(name, request) -> None:
    path = request.getfixturevalue(name)
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    container = done.stdout + done.stderr
    assert "ComprehensiveSR" in container
    assert [line for line in container.splitlines() if line.startswith("Error")] == []


@pytest.fixture
def of_doubts(doubtful, tmp_path):
    add_correction(doubtful, "b", labels=["cgn"], by="Dr Li", reason="细胞性新月体 " * 40)
    write_case_sr(build_cases(doubtful)[0], tmp_path / "doubts.dcm")
    return tmp_path / "doubts.dcm"


def test_the_document_has_its_warnings_as_texts(of_doubts) -> None:
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(of_doubts))
    (container,) = [
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    ]
    texts = texts_of(container)
    assert texts["Intended use"] == ["Research use only. Not a medical device; not for diagnosis."]
    assert texts["Not counted, not evaluated"] == ["s1 g 9"]
    first = " ".join(texts["To be read before the numbers"])
    assert "1 of 6 regions were proposed by a detector" in first
    assert "Crops were enlarged." in first
    assert "SYNTHETIC" in texts["Synthetic data"][0]


def test_the_reason_of_a_correction_is_not_truncated(of_doubts) -> None:
    group = images_of(groups_of(of_doubts))["b"]
    assert texts_of(group[0])["Changed by a person"][0].count("细胞性新月体") == 40


LARGE, SMALL = "1.2.826.0.1.9.1", "1.2.826.0.1.9.2"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.fixture
def of_dicom(folder, tmp_path):
    """The document of a case of which one slide of two is DICOM."""
    case = build_cases(folder)[0]
    reference = DicomReference(
        study_uid="1.2.826.0.1.7",
        series_uid="1.2.826.0.1.8",
        instances=((WSI, LARGE), (WSI, SMALL)),
    )
    first, *others = case.slides
    slides = (first.model_copy(update={"dicom": reference}), *others)
    write_case_sr(replace(case, slides=slides), tmp_path / "dicom.dcm")
    return tmp_path / "dicom.dcm"


def test_slides_that_are_dicom_are_named_as_evidence(of_dicom) -> None:
    document = pydicom.dcmread(of_dicom)
    study = document.PertinentOtherEvidenceSequence[0]
    assert study.StudyInstanceUID == "1.2.826.0.1.7"
    series = study.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.826.0.1.8"
    named = [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence]
    assert named == [LARGE, SMALL]


def test_each_glomerulus_refers_to_the_largest_level_of_its_slide(of_dicom) -> None:
    found = {name: group.source_images for name, group in images_of(groups_of(of_dicom)).items()}
    assert [one.referenced_sop_instance_uid for one in found["b"]] == [LARGE]
    assert found["d"] == []  # its slide is no DICOM


@pytest.mark.parametrize("name", ["path", "of_dicom"])
def test_only_existing_instances_are_referenced(name, request) -> None:
    document = pydicom.dcmread(request.getfixturevalue(name))
    named = {
        str(item.value) for item in document.iterall() if item.keyword == "ReferencedSOPInstanceUID"
    }
    assert named <= {LARGE, SMALL}
    assert "CurrentRequestedProcedureEvidenceSequence" not in document


def test_another_content_is_another_document_of_the_same_study(folder) -> None:
    first = case_sr(build_cases(folder)[0])
    assert case_sr(build_cases(folder)[0]).SOPInstanceUID == first.SOPInstanceUID
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    changed = case_sr(build_cases(folder)[0])
    assert changed.SOPInstanceUID != first.SOPInstanceUID
    assert changed.StudyInstanceUID == first.StudyInstanceUID
    fewer = case_sr(build_cases(folder, [])[0])
    assert fewer.SOPInstanceUID != changed.SOPInstanceUID


def test_the_same_content_gives_the_same_bytes_and_the_time_of_the_latest_correction(
    folder, tmp_path
) -> None:
    path = tmp_path / "case.dcm"
    write_case_sr(build_cases(folder)[0], path)
    before = path.read_bytes()
    time.sleep(1.1)  # DICOM times have a resolution of one second
    write_case_sr(build_cases(folder)[0], path)
    assert path.read_bytes() == before
    document = pydicom.dcmread(path)
    assert (document.ContentDate, document.ContentTime) == ("20261124", "200000")
    assert document.TimezoneOffsetFromUTC == "+0000"
    entry = add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    changed = case_sr(build_cases(folder)[0])
    assert changed.ContentDate == entry.time[:10].replace("-", "")
    assert changed.ContentTime == entry.time[11:19].replace(":", "")


@pytest.fixture
def of_nothing(doubtful, tmp_path):
    """The document of a case without any prediction."""
    (case,) = [one for one in build_cases(doubtful) if one.patient == "p3"]
    write_case_sr(case, tmp_path / "nothing.dcm")
    return tmp_path / "nothing.dcm"


def test_a_case_without_glomeruli_is_written_with_adequacy_and_warning(of_nothing) -> None:
    assert images_of(groups_of(of_nothing)) == {}
    group = groups_of(of_nothing)[0]
    assert numbers_of(group)["Glomeruli in all"] == 0
    assert "Share of: Crescent" not in numbers_of(group)
    assert "no glomerulus" in texts_of(group[0])["Shares and intervals"][0]
    assert values_of(
        question_of(groups_of(of_nothing), "Adequacy (Banff) 1.0: Number of glomeruli")
    )["Grade"] == ["inadequate"]
    crescents = question_of(groups_of(of_nothing), "MEST-C-like (Oxford) 1.0: Cellular")
    assert values_of(crescents)["Grade"] == ["Not assessed"]
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(of_nothing))
    container = [item for item in document.ContentSequence if item.ValueType == "CONTAINER"]
    few = texts_of(container[-1])["Too few glomeruli"]
    assert "MEST-C-like (Oxford): Only 0 of the 8 glomeruli that the source requires." in few
    texts = [
        text for item in container for text in texts_of(item).get("Not counted, not evaluated", [])
    ]
    assert texts == ["s7"]


BAD = "王\\小明\x07 " + "x" * 80


@pytest.fixture
def of_bad_names(folder, tmp_path):
    """The document of names that DICOM has no place for."""
    first, *others = folder.calls
    bad = replace(first, image_id=f"im\\a\x00{'g' * 70}", slide_id="s\\1\x1b", region_id=None)
    calls = tuple(replace(one, patient_id=BAD) for one in (bad, *others))
    label, *labels = folder.facts.model.labels
    named = label.model_copy(update={"name": "Nor\\mal\n" + "n" * 70})
    model = folder.facts.model.model_copy(
        update={"labels": (named, *labels), "model": "net\\1\x02"}
    )
    facts = folder.facts.model_copy(update={"model": model})
    write_case_sr(build_cases(replace(folder, facts=facts, calls=calls))[0], tmp_path / "n.dcm")
    return tmp_path / "n.dcm"


def test_no_value_is_longer_than_dicom_allows_or_several(of_bad_names) -> None:
    document = pydicom.dcmread(of_bad_names)
    assert str(document.PatientName) == ""
    for item in document.iterall():
        if item.VR in {"LO", "SH", "UC"}:
            assert item.VM <= 1, item
            assert len(str(item.value)) <= {"LO": 64, "SH": 16, "UC": 1000}[item.VR], item
        if item.VR in {"LO", "SH", "UC", "UT"}:
            assert not {sign for sign in str(item.value) if ord(sign) < 32 and sign != "\n"}, item
    (group,) = [
        one for name, one in images_of(groups_of(of_bad_names)).items() if name.startswith("im")
    ]
    assert texts_of(group[0])["Slide"] == ["s\\1\ufffd"]


def test_two_patients_never_become_one(folder) -> None:
    case = build_cases(folder)[0]
    names = ["x" * 64, "x" * 65, "x" * 66, "a\\b", "a_b", " a_b", "a\tb"]
    ids = [str(case_sr(replace(case, patient=name)).PatientID) for name in names]
    assert ids[0] == names[0]
    assert ids[4] == names[4]
    assert len({one.strip() for one in ids}) == len(names)
    assert max(map(len, ids)) == 64
