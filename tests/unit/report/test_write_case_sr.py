import shutil
import subprocess

import pydicom
import pytest
from highdicom.sr import ComprehensiveSR

from glomerulab.report.overrides import add_override
from glomerulab.report.reported_case import reported_cases
from glomerulab.report.write_case_sr import write_case_sr


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
    assert said["Counted as"] == "Crescent"
    assert said["Called by the model"] == "Mesangial proliferation"
    assert "Dr Li" in said["Changed by a person"]


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


def test_one_code_never_has_two_meanings(path) -> None:
    meanings: dict[tuple[str, str], set[str]] = {}
    for item in pydicom.dcmread(path).iterall():
        if item.keyword in {"ConceptCodeSequence", "ConceptNameCodeSequence"}:
            for code in item.value:
                key = (code.CodingSchemeDesignator, code.CodeValue)
                meanings.setdefault(key, set()).add(code.CodeMeaning)
    assert {key: found for key, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (dicom3tools)")
def test_dciodvfy_finds_no_error(path) -> None:
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert "ComprehensiveSR" in told
    assert [line for line in told.splitlines() if line.startswith("Error")] == []
