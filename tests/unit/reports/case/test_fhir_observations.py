from glomerulab.cases.add_corrections import add_correction
from glomerulab.cases.case import build_cases
from glomerulab.reports.case.fhir_observations import observations


def named(folder, text: str) -> list[dict]:
    """Every Observation of the first case whose code says so."""
    found = observations(build_cases(folder)[0])
    return [one for one in found if text in one["code"]["text"]]


def parts_of(observation: dict) -> dict[str, object]:
    """By what it says, the value of each component."""
    found: dict[str, object] = {}
    for part in observation.get("component", []):
        (value,) = (part[key] for key in part if key.startswith("value"))
        found[part["code"]["text"]] = value
    return found


def test_who_changed_which_image_when_and_why_stands_beside_the_models_call(folder) -> None:
    add_correction(folder, "b", labels=["fsg"], by="Dr Wu", reason="a scar")
    entry = add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    add_correction(folder, "d", labels=["normal"], by="Dr Li", reason="yes")
    (changed,) = named(folder, "changed by a person")
    (confirmed,) = named(folder, "confirmed by a person")
    assert changed["valueCodeableConcept"]["coding"][0]["code"] == "HP:0033316"
    assert changed["performer"] == [{"display": "Dr Li"}]
    assert changed["issued"] == entry.time
    said = [one for one in changed["note"] if "authorString" in one]
    assert [(one["authorString"], one["text"]) for one in said] == [
        ("Dr Wu", "Segmental sclerosis: a scar"),
        ("Dr Li", "Crescent: cells"),
    ]
    assert said[1]["time"] == entry.time
    parts = parts_of(changed)
    assert parts["Image"] == "b"
    assert parts["Slide"] == "s1"
    assert parts["Called by the model"]["text"] == "Mesangial proliferation"
    assert parts_of(confirmed)["Image"] == "d"


def test_an_image_of_no_glomerulus_says_so(folder) -> None:
    add_correction(folder, "b", labels=["not_a_glomerulus"], by="Dr Li", reason="a vessel")
    (changed,) = named(folder, "changed by a person")
    assert changed["valueCodeableConcept"]["text"] == "not a glomerulus"
    assert "glomerulus" not in changed["code"]["text"]


def test_counts_and_grades_tell_what_the_model_alone_had(folder) -> None:
    add_correction(folder, "b", labels=["cgn"], by="Dr Li", reason="cells")
    (crescents,) = named(folder, "Glomeruli: Crescent")
    assert (crescents["valueInteger"], parts_of(crescents)["By the model alone"]) == (2, 1)
    (everything,) = named(folder, "Glomeruli in all")
    assert (everything["valueInteger"], parts_of(everything)["By the model alone"]) == (5, 5)
    (c,) = named(folder, "MEST-C-like (Oxford) 1.0: Cellular")
    assert c["valueCodeableConcept"]["text"] == "C2"
    assert parts_of(c)["By the model alone"]["text"] == "C1"


def test_a_grade_tells_its_numbers_its_labels_and_other_grades(folder) -> None:
    (m,) = named(folder, "MEST-C-like (Oxford) 1.0: Mesangial")
    parts = parts_of(m)
    assert parts["Glomeruli with a finding of the question"] == 1
    assert parts["Glomeruli in the denominator"] == 5
    assert parts["Rests on the label"]["coding"][0]["code"] == "HP:0012574"
    (s,) = named(folder, "MEST-C-like (Oxford) 1.0: Segmental")
    assert parts_of(s)["Grade that the doubts allow too"]["text"] == "S0"
    assert s["valueCodeableConcept"]["text"] == "S1"
    assert "Only 5 of the 8 glomeruli that the source asks for." in [x["text"] for x in s["note"]]
    coding = s["valueCodeableConcept"]["coding"][0]
    assert coding["code"] == "mest_c_like/1.0/S/S1"
