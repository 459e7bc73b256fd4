import shutil
import subprocess
from dataclasses import replace

import pydicom
import pytest
from highdicom.sr import ComprehensiveSR

from glomerulab.case_folder import DicomReference
from glomerulab.report.add_overrides import add_override
from glomerulab.report.reported_case import reported_cases
from glomerulab.report.write_case_sr import case_sr, write_case_sr


def texts_of(container) -> dict[str, list[str]]:
    """Every text right below a container, by its name."""
    found: dict[str, list[str]] = {}
    for item in container.ContentSequence:
        if item.ValueType == "TEXT":
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            found.setdefault(name, []).append(item.TextValue)
    return found


@pytest.fixture
def path(folder, tmp_path):
    add_override(folder, "b", labels=["cgn"], by="Dr Li", reason="cells in Bowman's space")
    write_case_sr(reported_cases(folder)[0], tmp_path / "case.dcm")
    return tmp_path / "case.dcm"


def test_highdicom_reads_back_every_group(path) -> None:
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(path))
    groups = document.content.get_image_measurement_groups()
    assert [group.tracking_identifier for group in groups][:2] == ["case p1", "g1"]
    assert len(groups) == 1 + 6
    counts = {one.name.meaning: one.value for one in groups[0].get_measurements()}
    assert counts["Glomeruli in all"] == 5
    assert counts["Number of: Crescent"] == 2
    said = {one.name.meaning: one.value.meaning for one in groups[3].get_qualitative_evaluations()}
    assert said["Shown by this image"] == said["Glomerulus counted as"] == "Crescent"
    assert said["Called by the model"] == "Mesangial proliferation"
    assert "Dr Li" in texts_of(groups[3][0])["Changed by a person"][0]


def test_a_confirmed_call_is_named_so(folder, tmp_path) -> None:
    add_override(folder, "c", labels=["fsg"], by="Dr Li", reason="sharp enough")
    write_case_sr(reported_cases(folder)[0], tmp_path / "case.dcm")
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(tmp_path / "case.dcm"))
    said = [texts_of(group[0]) for group in document.content.get_image_measurement_groups()]
    confirmed = [one["Confirmed by a person"] for one in said if "Confirmed by a person" in one]
    assert len(confirmed) == 1
    assert "sharp enough" in confirmed[0][0]
    assert not any("Changed by a person" in one for one in said)


def test_findings_are_coded_by_hpo_beside_their_probabilities(path) -> None:
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(path))
    group = document.content.get_image_measurement_groups()[1]
    said = group.get_qualitative_evaluations()[0].value
    assert (said.value, said.scheme_designator, said.meaning) == ("HP:0033316", "99HPO", "Crescent")
    chances = {one.name.meaning: one.value for one in group.get_measurements()}
    assert chances["Probability of: Crescent"] == pytest.approx(0.9)


def test_it_is_neither_complete_nor_verified(path) -> None:
    document = pydicom.dcmread(path)
    assert document.CompletionFlag == "PARTIAL"
    assert document.VerificationFlag == "UNVERIFIED"
    assert "research use only" in document.Manufacturer
    assert document.PatientID == "p1"


@pytest.mark.parametrize("name", ["path", "of_doubts"])
def test_one_code_never_has_two_meanings(name, request) -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for item in pydicom.dcmread(request.getfixturevalue(name)).iterall():
        if item.keyword in {"ConceptCodeSequence", "ConceptNameCodeSequence"}:
            for code in item.value:
                key = (code.CodingSchemeDesignator, code.CodeValue)
                meanings.setdefault(key, set()).add(code.CodeMeaning)
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
@pytest.mark.parametrize("name", ["path", "of_dicom", "of_doubts"])
def test_dciodvfy_finds_no_error(name, request) -> None:
    path = request.getfixturevalue(name)
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert "ComprehensiveSR" in told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []


@pytest.fixture
def of_doubts(doubtful, tmp_path):
    add_override(doubtful, "b", labels=["cgn"], by="Dr Li", reason="细胞性新月体 " * 40)
    write_case_sr(reported_cases(doubtful)[0], tmp_path / "doubts.dcm")
    return tmp_path / "doubts.dcm"


def test_the_document_tells_as_text_what_must_be_read_before_its_numbers(of_doubts) -> None:
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(of_doubts))
    (told,) = [
        item
        for item in document.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Qualitative Evaluations"
    ]
    said = texts_of(told)
    assert said["Intended use"] == ["Research use only. Not a medical device; not for diagnosis."]
    assert said["In no count, not judged"] == ["s1 g 9"]
    first = " ".join(said["To be read before the numbers"])
    assert "1 of 6 regions were proposed by a detector" in first
    assert "Crops were enlarged." in first
    assert "SYNTHETIC" in said["Synthetic data"][0]


def test_a_persons_reason_is_not_cut_short(of_doubts) -> None:
    groups = ComprehensiveSR.from_dataset(
        pydicom.dcmread(of_doubts)
    ).content.get_image_measurement_groups()
    (group,) = [one for one in groups if one.tracking_identifier == "b"]
    assert texts_of(group[0])["Changed by a person"][0].count("细胞性新月体") == 40


LARGE, SMALL = "1.2.826.0.1.9.1", "1.2.826.0.1.9.2"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.fixture
def of_dicom(folder, tmp_path):
    """The document of a case of which one slide of two is DICOM."""
    case = reported_cases(folder)[0]
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
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(of_dicom))
    groups = document.content.get_image_measurement_groups()[1:]
    found = {group.tracking_identifier: group.source_images for group in groups}
    assert [one.referenced_sop_instance_uid for one in found["b"]] == [LARGE]
    assert found["d"] == []  # its slide is no DICOM


@pytest.mark.parametrize("name", ["path", "of_dicom"])
def test_nothing_that_does_not_exist_is_named(name, request) -> None:
    document = pydicom.dcmread(request.getfixturevalue(name))
    named = {
        str(item.value) for item in document.iterall() if item.keyword == "ReferencedSOPInstanceUID"
    }
    assert named <= {LARGE, SMALL}
    assert "CurrentRequestedProcedureEvidenceSequence" not in document


def test_another_content_is_another_document_of_the_same_study(folder) -> None:
    first = case_sr(reported_cases(folder)[0])
    assert case_sr(reported_cases(folder)[0]).SOPInstanceUID == first.SOPInstanceUID
    add_override(folder, "b", labels=["cgn"], by="Dr Li", reason="seen")
    changed = case_sr(reported_cases(folder)[0])
    assert changed.SOPInstanceUID != first.SOPInstanceUID
    assert changed.StudyInstanceUID == first.StudyInstanceUID
    fewer = case_sr(reported_cases(folder, [])[0])
    assert fewer.SOPInstanceUID != changed.SOPInstanceUID


def test_what_a_person_has_settled_is_referred_no_more_and_proposals_say_so(folder) -> None:
    add_override(folder, "c", labels=["fsg"], by="Dr Li", reason="it is one")
    proposed = replace(folder, calls=tuple(replace(one, is_proposed=True) for one in folder.calls))
    document = ComprehensiveSR.from_dataset(case_sr(reported_cases(proposed)[0]))
    groups = document.content.get_image_measurement_groups()
    (group,) = [one for one in groups if one.tracking_identifier == "c"]
    said = [(one.name.meaning, one.value.meaning) for one in group.get_qualitative_evaluations()]
    assert "Refer to a human" not in dict(said)
    assert ("Region", "Proposed by a detector, drawn by no person") in said


def test_a_glomerulus_on_several_slides_says_so_and_too_few_are_told(folder) -> None:
    document = ComprehensiveSR.from_dataset(case_sr(reported_cases(folder)[0]))
    group = document.content.get_image_measurement_groups()[2]  # image a2
    said = {one.name.meaning: one.value.meaning for one in group.get_qualitative_evaluations()}
    assert (said["Shown by this image"], said["Glomerulus counted as"]) == ("Normal", "Crescent")
    (other,) = texts_of(group[0])["Other images of the glomerulus"]
    assert other == "glomerulus 1, also on s1, counted once"
    told = texts_of(document.ContentSequence[-1])["Too few glomeruli"]
    assert "MEST-C-like (Oxford): Only 5 of the 8 glomeruli that the source asks for." in told
