"""What a case adds up to as FHIR Observations: counts, answers of rule sets, words of people.

A record shows an Observation without its report, so that each tells what its number rests on.
"""

import uuid
from typing import Any

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.case import Case
from glomerulab.cases.corrections import Correction, parse_time
from glomerulab.cases.grading import ItemResult, RuleResult
from glomerulab.cases.rule_codes import counted_name, grade_code, question_code
from glomerulab.cases.rules import Grade, RuleSet
from glomerulab.cases.summary import LabelCount
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.reports.case.words import reading_words, words
from glomerulab.runtime.names import clean_id
from glomerulab.taxonomy import Label

__all__ = ["NAMESPACE", "Resource", "identifier", "observations", "subject"]

HPO = "http://human-phenotype-ontology.org"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
UCUM = "http://unitsofmeasure.org"
NAMESPACE = uuid.UUID("2c0c7a5e-6a2b-5f0e-9d36-0b7e5c2f4a90")
OWN_IDS = f"urn:uuid:{NAMESPACE}"
"""System of our identifiers."""
OWN_CODES = f"urn:uuid:{uuid.uuid5(NAMESPACE, 'codes')}"
"""System of our codes for questions and grades."""
NOTE = words("en")["research_only"]

Resource = dict[str, Any]


def observations(case: Case) -> list[Resource]:
    """Return a case as Observations.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    list of dict
        The glomeruli in all, each label, each question of each rule set, and each image that a
        person changed or confirmed.
    """
    found = [_all(case)]
    labels = zip(case.summary.labels, case.original.labels, strict=True)
    found += [_count(case, one, alone.n_with) for one, alone in labels]
    for result, original in zip(case.summary.rules, case.original.rules, strict=True):
        for item, alone_item in zip(result.items, original.items, strict=True):
            found.append(_item(case, result, item, alone_item.grade))
    return found + [_word(case, entry) for entry in case.latest_corrections.values()]


def subject(case: Case) -> Resource:
    """Name the patient, by identifier only."""
    return {"type": "Patient", "identifier": {"value": clean_id(case.patient)}}


def identifier(case: Case, *parts: str) -> Resource:
    """Name what stays the same in each version of a case: the report, or a part of it."""
    value = "/".join((str(uuid.uuid5(NAMESPACE, case.mark)), *parts))
    return {"system": OWN_IDS, "value": value}


def _all(case: Case) -> Resource:
    summary = case.summary
    found = _observation(case, {"text": "Glomeruli in all"}, "glomeruli")
    components = _range(summary.n_range, case.original.n_glomeruli)
    return found | {
        "valueInteger": summary.n_glomeruli,
        "note": _severe(case),
        "component": components,
    }


def _count(case: Case, one: LabelCount, by_model: int) -> Resource:
    code: Resource = {"text": f"Glomeruli: {one.label.name}"} | _hpo([one.label])
    found = {**_observation(case, code, "count", one.label.id), "valueInteger": one.n_with}
    components = [_number("Glomeruli in all", one.n_of)]
    if one.interval is not None and one.share is not None:
        low, high = one.interval
        components += [
            _percent("Share of glomeruli", one.share),
            _percent("Share, lower end of the 95 % interval (Wilson)", low),
            _percent("Share, upper end of the 95 % interval (Wilson)", high),
        ]
    components += _range(one.n_range, by_model)
    return found | {"note": _severe(case), "component": components}


def _item(case: Case, result: RuleResult, item: ItemResult, alone: Grade | None) -> Resource:
    rules = result.rule_set
    name = f"{rules.name} {rules.version}: {item.item.name}"
    key = question_code(rules, item.item)
    coding = {"system": OWN_CODES, "code": key, "display": name}
    found = _observation(case, {"coding": [coding], "text": name}, key)
    notes = [NOTE, *item.caveats]
    components: list[Resource] = []
    if item.grade is None:
        absent = {"system": ABSENT, "code": "not-performed", "display": "Not Performed"}
        found["dataAbsentReason"] = {"coding": [absent], "text": item.not_assessed}
    else:
        found["valueCodeableConcept"] = _grade(rules, item, item.grade)
        notes += [result.too_few] if result.too_few else []
        components += [_number(counted_name(one), one.n_with) for one in item.counted]
        components.append(_number("Glomeruli in the denominator", item.n_of))
    components += [
        _concept("Grade that the doubts allow too", _grade(rules, item, one))
        for one in item.possible
        if one != item.grade
    ]
    labels = [label for label in case.taxonomy.labels if label.id in item.labels]
    components += [
        _concept("Rests on the label", _hpo([one]) | {"text": one.name}) for one in labels
    ]
    if alone is not None:
        components.append(_concept("By the model alone", _grade(rules, item, alone)))
    if components:
        found["component"] = components
    return found | {"note": [{"text": text} for text in notes]}


def _word(case: Case, newest: Correction) -> Resource:
    """Tell of one image what people said of it, the newest word as value."""
    call = next(one for one in case.calls if one.image_id == newest.image_id)
    done = "confirmed" if call.image_id in case.confirmed else "changed"
    code = {"text": f"Image that the model called, {done} by a person"}
    found = _observation(case, code, "image", call.image_id)
    del found["device"], found["issued"], found["effectiveDateTime"]  # a person said it, and when:
    if when := parse_time(newest.time):
        found |= {"effectiveDateTime": when.isoformat(), "issued": when.isoformat()}
    notes: list[Resource] = [{"text": NOTE}]
    for entry in case.corrections:
        if entry.image_id == call.image_id:
            said = reading_words(entry.reading, case.taxonomy, "en")
            time = parse_time(entry.time)
            dated = {"time": time.isoformat()} if time else {}
            notes.append({"authorString": entry.by, "text": f"{said}: {entry.reason}"} | dated)
    components = [_text("Image", call.image_id)]
    components += [_text("Slide", call.slide_id)] if call.slide_id else []
    number = str(case.glomerulus_numbers[call.image_id])
    components.append(_text("Glomerulus of this case", number))
    components.append(_concept("Called by the model", _reading(case, call.called)))
    return found | {
        "performer": [{"display": newest.by}],
        "valueCodeableConcept": _reading(case, newest.reading),
        "note": notes,
        "component": components,
    }


def _observation(case: Case, code: Resource, *key: str) -> Resource:
    return {
        "resourceType": "Observation",
        "identifier": [identifier(case, *key)],
        "status": "preliminary",
        "code": code,
        "subject": subject(case),
        "effectiveDateTime": case.facts.created,
        "issued": case.last_modified.isoformat(),
        "device": {"display": f"glomerulab {case.facts.glomerulab}, {case.facts.model.model}"},
    }


def _severe(case: Case) -> list[Resource]:
    severe = [told.sentence for told in case_warnings(case, "en") if told.is_severe]
    return [{"text": text} for text in (NOTE, *severe)]


def _range(n_range: tuple[int, int], by_model: int) -> list[Resource]:
    return [
        _number("Fewest that uncertain glomeruli allow", n_range[0]),
        _number("Most that uncertain glomeruli allow", n_range[1]),
        _number("By the model alone", by_model),
    ]


def _grade(rules: RuleSet, item: ItemResult, grade: Grade) -> Resource:
    code = grade_code(rules, item.item, grade)
    coding = {"system": OWN_CODES, "code": code, "display": grade.name or grade.grade}
    return {"coding": [coding], "text": grade.grade}


def _reading(case: Case, reading: LabelSet) -> Resource:
    shown = [label for label in case.taxonomy.labels if reading and label.id in reading]
    # Codings of one concept mean the same: of several labels none alone is what the image shows.
    coding = _hpo(shown) if len(shown) == 1 else {}
    return coding | {"text": reading_words(reading, case.taxonomy, "en")}


def _hpo(labels: list[Label]) -> Resource:
    codes = [{"system": HPO, "code": one.hpo, "display": one.name} for one in labels if one.hpo]
    return {"coding": codes} if codes else {}


def _concept(text: str, value: Resource) -> Resource:
    return {"code": {"text": text}, "valueCodeableConcept": value}


def _text(text: str, value: str) -> Resource:
    return {"code": {"text": text}, "valueString": value}


def _number(text: str, value: int) -> Resource:
    return {"code": {"text": text}, "valueInteger": value}


def _percent(text: str, share: float) -> Resource:
    quantity = {"value": round(100 * share, 2), "unit": "%", "system": UCUM, "code": "%"}
    return {"code": {"text": text}, "valueQuantity": quantity}
