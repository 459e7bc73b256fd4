import json
from dataclasses import replace

from fhir.resources.R4B.bundle import Bundle

from glomerulab.cases.case import build_cases
from glomerulab.cases.case_folder import read_case_folder
from glomerulab.cases.corrections import add_correction
from glomerulab.reports.case.fhir import observations, write_case_fhir
from tests.support import cases
from tests.support.cases import WITH_GLOBAL, one_call, write_case

R4_ELEMENTS = {  # https://hl7.org/fhir/R4, 4.0.1: what our writer could be tempted to use
    "Bundle": {
        "resourceType",
        "id",
        "meta",
        "identifier",
        "type",
        "timestamp",
        "total",
        "link",
        "entry",
    },
    "DiagnosticReport": {
        "resourceType",
        "id",
        "meta",
        "text",
        "identifier",
        "basedOn",
        "status",
        "category",
        "code",
        "subject",
        "encounter",
        "effectiveDateTime",
        "effectivePeriod",
        "issued",
        "performer",
        "resultsInterpreter",
        "specimen",
        "result",
        "imagingStudy",
        "media",
        "conclusion",
        "conclusionCode",
        "presentedForm",
    },
    "Observation": {
        "resourceType",
        "id",
        "meta",
        "text",
        "identifier",
        "basedOn",
        "partOf",
        "status",
        "category",
        "code",
        "subject",
        "focus",
        "encounter",
        "effectiveDateTime",
        "issued",
        "performer",
        "valueQuantity",
        "valueCodeableConcept",
        "valueString",
        "valueInteger",
        "dataAbsentReason",
        "interpretation",
        "note",
        "bodySite",
        "method",
        "specimen",
        "device",
        "referenceRange",
        "hasMember",
        "derivedFrom",
        "component",
    },
}


def written(folder, tmp_path) -> dict:
    write_case_fhir(build_cases(folder)[0], tmp_path / "f.json")
    return json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))


def test_the_bundle_is_valid_fhir(folder, tmp_path) -> None:
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


def test_an_item_without_a_grade_has_a_reason_instead_of_a_value(folder, tmp_path) -> None:
    observations = [e["resource"] for e in written(folder, tmp_path)["entry"][1:]]
    t = next(one for one in observations if "Tubular atrophy" in one["code"]["text"])
    assert t["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert "valueCodeableConcept" not in t


def test_every_resource_is_preliminary_and_for_research(folder, tmp_path) -> None:
    resources = [entry["resource"] for entry in written(folder, tmp_path)["entry"]]
    assert {one["status"] for one in resources} == {"preliminary"}
    assert all("Research use only" in json.dumps(one) for one in resources)
    assert "SYNTHETIC" in resources[0]["conclusion"]


def test_the_conclusion_and_each_count_carry_the_warnings(doubtful, tmp_path) -> None:
    resources = [entry["resource"] for entry in written(doubtful, tmp_path)["entry"]]
    conclusion = resources[0]["conclusion"]
    for expected in (
        "1 of 6 regions were proposed by a detector",
        "Not counted: s1 g 9.",
        "Note. Crops were enlarged.",
        "Research use only",
    ):
        assert expected in conclusion
    counts = [one for one in resources[1:] if one["code"]["text"].startswith("Glomeruli: ")]
    assert len(counts) == 4
    for one in counts:
        notes = " ".join(note["text"] for note in one["note"])
        assert "proposed by a detector" in notes
        assert "s1 g 9" in notes
        assert "enlarged" not in notes  # of the report, not of this number


def resources_of(bundle: dict, text: str) -> list[dict]:
    """Every Observation with this code."""
    found = [entry["resource"] for entry in bundle["entry"][1:]]
    return [one for one in found if text in one["code"]["text"]]


def test_a_correction_has_other_ids_and_its_own_time_and_the_same_identifier(
    folder, tmp_path
) -> None:
    before = written(folder, tmp_path)
    assert written(folder, tmp_path) == before
    entry = add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    after = written(folder, tmp_path)
    assert written(folder, tmp_path) == after
    urls = [{one["fullUrl"] for one in bundle["entry"]} for bundle in (before, after)]
    assert urls[0].isdisjoint(urls[1])
    assert before["identifier"] != after["identifier"]
    old, new = (bundle["entry"][0]["resource"] for bundle in (before, after))
    assert old["identifier"] == new["identifier"]
    assert old["issued"] == before["timestamp"] == "2026-11-24T20:00:00Z"
    assert new["issued"] == after["timestamp"] == entry.time.replace("+00:00", "Z")
    counts = [resources_of(bundle, "Crescent")[0] for bundle in (before, after)]
    assert counts[0]["identifier"] == counts[1]["identifier"]
    assert [one["valueInteger"] for one in counts] == [1, 2]


def test_another_patient_has_another_identifier(folder, tmp_path) -> None:
    found = []
    for case in build_cases(folder):
        write_case_fhir(case, tmp_path / "f.json")
        bundle = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
        found.append(bundle["entry"][0]["resource"]["identifier"][0]["value"])
    assert len(set(found)) == 2


def test_only_elements_that_r4_has_are_used(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    bundle = written(folder, tmp_path)
    for one in (bundle, *(entry["resource"] for entry in bundle["entry"])):
        assert set(one) <= R4_ELEMENTS[one["resourceType"]]


def test_a_case_without_glomeruli_is_written_with_adequacy_and_warning(doubtful, tmp_path) -> None:
    (case,) = [one for one in build_cases(doubtful) if one.patient == "p3"]
    assert case.calls == ()
    write_case_fhir(case, tmp_path / "f.json")
    bundle = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    Bundle.model_validate(bundle)
    (adequacy,) = resources_of(bundle, "Adequacy (Banff) 1.0: Number of glomeruli")
    assert adequacy["valueCodeableConcept"]["text"] == "inadequate"
    (everything,) = resources_of(bundle, "Glomeruli in all")
    assert everything["valueInteger"] == 0
    assert "could not be evaluated" in bundle["entry"][0]["resource"]["conclusion"]
    bare = replace(case, facts=case.facts.model_copy(update={"failures": ()}), slides=())
    write_case_fhir(bare, tmp_path / "f.json")
    assert "Fewer than 25 glomeruli" in (tmp_path / "f.json").read_text(encoding="utf-8")


def test_control_characters_are_removed_and_patients_stay_distinct(folder, tmp_path) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr\x07 Li", reason="cells\x0bseen")
    first = build_cases(folder)[0]
    found = []
    for name in ("a\x00", "a\x01"):
        write_case_fhir(replace(first, patient=name), tmp_path / "f.json")
        bundle = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
        Bundle.model_validate(bundle)
        found.append(bundle["entry"][0]["resource"]["subject"]["identifier"]["value"])
        assert not any(ord(sign) < 32 for sign in json.dumps(bundle, ensure_ascii=False))
        assert all(
            sign not in json.dumps(bundle) for sign in ("\\u0007", "\\u000b", "\\u0000", "\\u0001")
        )
    assert found[0] != found[1]


def test_the_conclusion_names_who_changed_what_and_what_the_model_alone_had(
    folder, tmp_path
) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    add_correction(folder, "d", labels=["normal"], by="Dr Li", reason="yes")
    conclusion = written(folder, tmp_path)["entry"][0]["resource"]["conclusion"]
    assert "Image b changed by Dr Li" in conclusion
    assert "Crescent instead of Mesangial proliferation. Reason: cells" in conclusion
    assert "Image d confirmed by Dr Li" in conclusion
    assert "By the model alone: 5 glomeruli" in conclusion


def test_possible_grades_are_listed_without_a_grade(tmp_path) -> None:
    calls = [one_call(f"x{n}", "gs", either="gs+cgn", taxonomy=WITH_GLOBAL) for n in range(8)]
    write_case(tmp_path, calls, taxonomy=WITH_GLOBAL)
    found = written(read_case_folder(tmp_path), tmp_path)
    (one,) = resources_of(found, "Cellular or fibrocellular crescents")
    assert one["dataAbsentReason"]["text"] == "no glomerulus in the denominator"
    expected = [
        (part["code"]["text"], part.get("valueCodeableConcept", {}).get("text"))
        for part in one["component"]
    ]
    assert ("Other possible grade", "C2") in expected


def test_each_count_of_a_mixed_class_is_a_component(tmp_path) -> None:
    calls = cases.case((4, "normal"), (3, "cgn"), (2, "gs"), (1, "fsg"), taxonomy=WITH_GLOBAL)
    write_case(tmp_path, calls, taxonomy=WITH_GLOBAL)
    (mixed,) = resources_of(written(read_case_folder(tmp_path), tmp_path), "Berden (ANCA) 1.0")
    numbers = {
        one["code"]["text"]: one["valueInteger"]
        for one in mixed["component"]
        if "valueInteger" in one
    }
    assert numbers == {
        "Glomeruli counted: Global sclerosis": 2,
        "Glomeruli counted: Normal glomerulus": 4,
        "Glomeruli counted: Cellular crescent": 3,
        "Glomeruli in the denominator": 10,
    }


def named(folder, text: str) -> list[dict]:
    """Every Observation of the first case with this code."""
    found = observations(build_cases(folder)[0])
    return [one for one in found if text in one["code"]["text"]]


def parts_of(observation: dict) -> dict[str, object]:
    """The value of each component by its code text."""
    found: dict[str, object] = {}
    for part in observation.get("component", []):
        (value,) = (part[key] for key in part if key.startswith("value"))
        found[part["code"]["text"]] = value
    return found


def test_a_corrected_image_has_author_time_reason_and_the_models_call(folder) -> None:
    add_correction(folder, "b", labels=["fsg"], by="Dr Wu", reason="a scar")
    entry = add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    add_correction(folder, "d", labels=["normal"], by="Dr Li", reason="yes")
    (changed,) = named(folder, "changed by a person")
    (confirmed,) = named(folder, "confirmed by a person")
    assert changed["valueCodeableConcept"]["coding"][0]["code"] == "HP:0033316"
    assert changed["performer"] == [{"display": "Dr Li"}]
    assert changed["issued"] == entry.time
    expected = [one for one in changed["note"] if "authorString" in one]
    assert [(one["authorString"], one["text"]) for one in expected] == [
        ("Dr Wu", "Segmental sclerosis: a scar"),
        ("Dr Li", "Crescent: cells"),
    ]
    assert expected[1]["time"] == entry.time
    parts = parts_of(changed)
    assert parts["Image"] == "b"
    assert parts["Slide"] == "s1"
    assert parts["Called by the model"]["text"] == "Mesangial proliferation"
    assert parts_of(confirmed)["Image"] == "d"


def test_an_image_without_a_glomerulus_has_that_as_its_value(folder) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="Dr Li", reason="a vessel")
    (changed,) = named(folder, "changed by a person")
    assert changed["valueCodeableConcept"]["text"] == "not a glomerulus"
    assert "glomerulus" not in changed["code"]["text"]


def test_counts_and_grades_have_those_of_the_model(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    (crescents,) = named(folder, "Glomeruli: Crescent")
    assert (crescents["valueInteger"], parts_of(crescents)["By the model alone"]) == (2, 1)
    (everything,) = named(folder, "Glomeruli in all")
    assert (everything["valueInteger"], parts_of(everything)["By the model alone"]) == (5, 5)
    (c,) = named(folder, "MEST-C-like (Oxford) 1.0: Cellular")
    assert c["valueCodeableConcept"]["text"] == "C2"
    assert parts_of(c)["By the model alone"]["text"] == "C1"


def test_a_grade_has_its_counts_labels_and_possible_grades(folder) -> None:
    (m,) = named(folder, "MEST-C-like (Oxford) 1.0: Mesangial")
    parts = parts_of(m)
    assert parts["Glomeruli with a finding of the question"] == 1
    assert parts["Glomeruli in the denominator"] == 5
    assert parts["Based on the label"]["coding"][0]["code"] == "HP:0012574"
    (s,) = named(folder, "MEST-C-like (Oxford) 1.0: Segmental")
    assert parts_of(s)["Other possible grade"]["text"] == "S0"
    assert s["valueCodeableConcept"]["text"] == "S1"
    assert "Only 5 of the 8 glomeruli that the source requires." in [x["text"] for x in s["note"]]
    coding = s["valueCodeableConcept"]["coding"][0]
    assert coding["code"] == "mest_c_like/1.0/S/S1"
