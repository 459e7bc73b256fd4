import json

from fhir.resources.R4B.bundle import Bundle

from glomerulab.report.reported_case import reported_cases
from glomerulab.report.write_case_fhir import write_case_fhir


def written(folder, tmp_path) -> dict:
    write_case_fhir(reported_cases(folder)[0], tmp_path / "f.json")
    return json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))


def test_what_is_written_is_valid_fhir(folder, tmp_path) -> None:
    bundle = Bundle.model_validate(written(folder, tmp_path))
    kinds = [entry.resource.__resource_type__ for entry in bundle.entry]
    assert kinds[0] == "DiagnosticReport"
    assert set(kinds[1:]) == {"Observation"}


def test_each_result_of_the_report_is_in_the_bundle(folder, tmp_path) -> None:
    bundle = written(folder, tmp_path)
    urls = {entry["fullUrl"] for entry in bundle["entry"]}
    results = [one["reference"] for one in bundle["entry"][0]["resource"]["result"]]
    assert len(results) == len(urls) - 1
    assert set(results) < urls


def test_counts_are_coded_by_hpo_and_no_diagnosis_is(folder, tmp_path) -> None:
    bundle = written(folder, tmp_path)
    observations = [entry["resource"] for entry in bundle["entry"][1:]]
    crescent = next(one for one in observations if "Crescent" in one["code"]["text"])
    assert crescent["code"]["coding"][0]["code"] == "HP:0033316"
    assert crescent["valueInteger"] == 1
    assert "icd" not in json.dumps(bundle).lower()


def test_what_was_not_assessed_has_a_reason_in_place_of_a_value(folder, tmp_path) -> None:
    observations = [e["resource"] for e in written(folder, tmp_path)["entry"][1:]]
    t = next(one for one in observations if "Tubular atrophy" in one["code"]["text"])
    assert t["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "valueCodeableConcept" not in t


def test_nothing_is_final_and_all_is_for_research(folder, tmp_path) -> None:
    resources = [entry["resource"] for entry in written(folder, tmp_path)["entry"]]
    assert {one["status"] for one in resources} == {"preliminary"}
    assert all("Research use only" in json.dumps(one) for one in resources)
    assert "SYNTHETIC" in resources[0]["conclusion"]


def test_the_conclusion_and_each_count_tell_what_the_numbers_rest_on(doubtful, tmp_path) -> None:
    resources = [entry["resource"] for entry in written(doubtful, tmp_path)["entry"]]
    conclusion = resources[0]["conclusion"]
    for said in ("1 of 6 regions were proposed by a detector", "In no count: s1 g 9.",
                 "Note. Crops were enlarged.", "Research use only"):  # fmt: skip
        assert said in conclusion
    counts = [one for one in resources[1:] if one["code"]["text"].startswith("Glomeruli: ")]
    assert len(counts) == 4
    for one in counts:
        notes = " ".join(note["text"] for note in one["note"])
        assert "proposed by a detector" in notes
        assert "s1 g 9" in notes
        assert "enlarged" not in notes  # of the report, not of this number
