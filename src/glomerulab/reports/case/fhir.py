"""A case as FHIR R4: a bundle of one DiagnosticReport and its Observations.

Counts carry HPO codes from the taxonomy; no diagnosis is coded. The report is *preliminary*, also
after a correction: a person, not a program, makes it final. A changed content gets new UUIDs; the
identifiers stay, so that a receiver recognises versions of the same report.

An archive shows an Observation without its report, so each carries its own warnings.
"""

import hashlib
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.case import Case
from glomerulab.cases.corrections import Correction, parse_time
from glomerulab.cases.grading import ItemResult, LabelCount, RuleResult
from glomerulab.cases.rules import Grade, RuleSet
from glomerulab.cases.structures import Measured, Unit
from glomerulab.reports.case.text import (
    RESEARCH_USE,
    SYNTHETIC,
    call_name,
    labels_name,
    utc_text,
)
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import clean_id, clean_text
from glomerulab.taxonomy import Label

SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
HPO = "http://human-phenotype-ontology.org"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
UCUM = "http://unitsofmeasure.org"
NAMESPACE = uuid.UUID("2c0c7a5e-6a2b-5f0e-9d36-0b7e5c2f4a90")
OWN_IDS = f"urn:uuid:{NAMESPACE}"
"""System of our identifiers."""
OWN_CODES = f"urn:uuid:{uuid.uuid5(NAMESPACE, 'codes')}"
"""System of our codes of items and grades."""

Resource = dict[str, Any]


def case_bundle(case: Case) -> Bundle:
    """Return a case as a validated bundle of type ``collection``.

    The patient is named by identifier only. ``timestamp`` and ``issued`` are the time of the
    latest prediction or correction.
    """
    resources: list[Resource] = _clean([_report(case), *observations(case)])
    content = json.dumps(resources, sort_keys=True)
    version = f"{case.key}/{hashlib.sha256(content.encode()).hexdigest()}"
    urls = [_url(version, str(place)) for place in range(len(resources))]
    if urls[1:]:
        resources[0]["result"] = [{"reference": url} for url in urls[1:]]
    facts = {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": _url(version, "bundle")},
        "type": "collection",
        "timestamp": case.last_modified.isoformat(),
        "entry": [
            {"fullUrl": url, "resource": one} for url, one in zip(urls, resources, strict=True)
        ],
    }
    bundle: Bundle = Bundle.model_validate(facts)
    return bundle


def write_case_fhir(case: Case, path: Path) -> None:
    """Write the bundle as JSON."""
    text = str(case_bundle(case).model_dump_json(indent=2))
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _report(case: Case) -> Resource:
    headline = f"{case_view(case, 'en').headline}. {RESEARCH_USE}"
    return {
        "resourceType": "DiagnosticReport",
        "identifier": [_identifier(case)],
        "status": "preliminary",
        "category": [{"coding": [{"system": SECTION, "code": "PAT", "display": "Pathology"}]}],
        "code": {"text": "Glomeruli counted by a program (research use only)"},
        "subject": _subject(case),
        "effectiveDateTime": case.facts.created,
        "issued": case.last_modified.isoformat(),
        "conclusion": "\n".join([headline, *_conclusion_lines(case)]),
    }


def _conclusion_lines(case: Case) -> list[str]:
    """Return the warnings and the latest corrections, a line each."""
    lines = [SYNTHETIC] if case.facts.is_synthetic else []
    lines += [one.sentence for one in case_warnings(case, "en", max_listed=None)]
    if case.corrections:
        by_model = case_view(replace(case, summary=case.model_summary), "en").headline
        lines.append(f"By the model alone: {by_model}.")
    return lines + [_correction_line(case, entry) for entry in case.latest_corrections.values()]


def _correction_line(case: Case, entry: Correction) -> str:
    """Return who changed or confirmed an image, and why; R4 reports have no notes for it."""
    called = next(one.called for one in case.calls if one.image_id == entry.image_id)
    now = labels_name(entry.labels, case.taxonomy, "en")
    before = call_name(called, case.taxonomy, "en")
    action, labels = "changed", f"{now} instead of {before}"
    if entry.image_id in case.confirmed_images:
        action, labels = "confirmed", now
    return (
        f"Image {entry.image_id} {action} by {entry.by}, {utc_text(entry.time)}: {labels}. "
        f"Reason: {entry.reason}"
    )


def observations(case: Case) -> list[Resource]:
    """Return a case as Observations.

    The number of glomeruli, each label, each item of each rule set, and each image that a person
    changed or confirmed.
    """
    found = [_glomeruli(case)]
    labels = zip(case.summary.labels, case.model_summary.labels, strict=True)
    found += [_label(case, one, by_model.n_with) for one, by_model in labels]
    if case.structures is not None:
        found += [_measure(case, one) for one in case.structures.measures]
    for result, by_model in zip(case.summary.rules, case.model_summary.rules, strict=True):
        for item, model_item in zip(result.items, by_model.items, strict=True):
            found.append(_item(case, result, item, model_item.grade))
    return found + [_corrected_image(case, entry) for entry in case.latest_corrections.values()]


def _glomeruli(case: Case) -> Resource:
    summary = case.summary
    components = _range(summary.n_range, case.model_summary.n_glomeruli)
    if summary.n_not_assessed:
        components.append(_number("Not assessed as glomeruli, not counted", summary.n_not_assessed))
    return _observation(case, {"text": "Glomeruli in all"}, "glomeruli") | {
        "valueInteger": summary.n_glomeruli,
        "note": _severe_warnings(case),
        "component": components,
    }


def _label(case: Case, one: LabelCount, by_model: int) -> Resource:
    code: Resource = {"text": f"Glomeruli: {one.label.name}"} | _hpo([one.label])
    components = [_number("Glomeruli in all", one.n_of)]
    if one.interval is not None and one.share is not None:
        low, high = one.interval
        components += [
            _percent("Share of glomeruli", one.share),
            _percent("Share, lower end of the 95 % interval (Wilson)", low),
            _percent("Share, upper end of the 95 % interval (Wilson)", high),
        ]
    return _observation(case, code, "count", one.label.id) | {
        "valueInteger": one.n_with,
        "note": _severe_warnings(case),
        "component": components + _range(one.n_range, by_model),
    }


def _measure(case: Case, one: Measured) -> Resource:
    """Return what outlines gave, with its range, or why they gave nothing."""
    found = _observation(case, {"text": one.name("en")}, "structures", one.key)
    if one.value is None:
        absent = {"system": ABSENT, "code": "not-performed", "display": "Not Performed"}
        return found | {"dataAbsentReason": {"coding": [absent], "text": one.basis["en"]}}
    low, likely, high = ({"valueQuantity": _quantity(end, one.unit)} for end in one.value)
    return found | {
        **likely,
        "note": [{"text": RESEARCH_USE}, {"text": one.basis["en"]}],
        "component": [
            {"code": {"text": "Where the segmenter is certain"}} | low,
            {"code": {"text": "Where the segmenter finds it possible"}} | high,
        ],
    }


def _quantity(value: float, unit: Unit) -> Resource:
    code = {"mm2": "mm2", "share": "%", "per_mm2": "/mm2", "count": "1"}[unit]
    number = round(100 * value, 2) if unit == "share" else round(value, 4)
    return {"value": number, "unit": code, "system": UCUM, "code": code}


def _item(case: Case, result: RuleResult, item: ItemResult, by_model: Grade | None) -> Resource:
    rules = result.rule_set
    name = f"{rules.name} {rules.version}: {item.item.name}"
    key = rules.code(item.item)
    coding = {"system": OWN_CODES, "code": key, "display": name}
    found = _observation(case, {"coding": [coding], "text": name}, key)
    notes = [RESEARCH_USE, *(text["en"] for text in item.warnings)]
    components: list[Resource] = []
    if item.grade is None:
        absent = {"system": ABSENT, "code": "not-performed", "display": "Not Performed"}
        reason = "" if item.not_assessed is None else item.not_assessed["en"]
        found["dataAbsentReason"] = {"coding": [absent], "text": reason}
    else:
        found["valueCodeableConcept"] = _grade(rules, item, item.grade)
        notes += [result.too_few] if result.too_few else []
        components += [_number(one.name, one.n_with) for one in item.counts]
        if item.measured is None:
            components.append(_number("Glomeruli in the denominator", item.n_of))
        else:
            notes.append(f"{item.measured.name('en')}: {item.measured.text('en')}")
    components += [
        _concept("Other possible grade", _grade(rules, item, one))
        for one in item.possible
        if one != item.grade
    ]
    components += [
        _concept("Based on the label", _hpo([label]) | {"text": label.name})
        for label in case.taxonomy.labels
        if label.id in item.labels
    ]
    if by_model is not None:
        components.append(_concept("By the model alone", _grade(rules, item, by_model)))
    if components:
        found["component"] = components
    return found | {"note": [{"text": text} for text in notes]}


def _corrected_image(case: Case, latest: Correction) -> Resource:
    """Return the Observation of a corrected image, with the latest labels as its value."""
    call = next(one for one in case.calls if one.image_id == latest.image_id)
    action = "confirmed" if call.image_id in case.confirmed_images else "changed"
    code = {"text": f"Image that the model called, {action} by a person"}
    found = _observation(case, code, "image", call.image_id)
    del found["device"], found["issued"], found["effectiveDateTime"]  # a person's, not a program's
    if when := parse_time(latest.time):
        found |= {"effectiveDateTime": when.isoformat(), "issued": when.isoformat()}
    notes: list[Resource] = [{"text": RESEARCH_USE}]
    for entry in case.corrections:
        if entry.image_id == call.image_id:
            text = f"{labels_name(entry.labels, case.taxonomy, 'en')}: {entry.reason}"
            time = parse_time(entry.time)
            dated = {"time": time.isoformat()} if time else {}
            notes.append({"authorString": entry.by, "text": text} | dated)
    components = [_text("Image", call.image_id)]
    components += [_text("Slide", call.slide_id)] if call.slide_id else []
    number = str(case.glomerulus_numbers[call.image_id])
    components.append(_text("Glomerulus of this case", number))
    components.append(
        _concept(
            "Called by the model",
            {"text": call_name(None, case.taxonomy, "en")}
            if call.called is None
            else _labels(case, call.called),
        )
    )
    return found | {
        "performer": [{"display": latest.by}],
        "valueCodeableConcept": _labels(case, latest.labels),
        "note": notes,
        "component": components,
    }


def _observation(case: Case, code: Resource, *key: str) -> Resource:
    return {
        "resourceType": "Observation",
        "identifier": [_identifier(case, *key)],
        "status": "preliminary",
        "code": code,
        "subject": _subject(case),
        "effectiveDateTime": case.facts.created,
        "issued": case.last_modified.isoformat(),
        "device": {"display": f"glomerulab {case.facts.glomerulab}, {case.facts.model.model}"},
    }


def _subject(case: Case) -> Resource:
    return {"type": "Patient", "identifier": {"value": clean_id(case.patient)}}


def _identifier(case: Case, *parts: str) -> Resource:
    """Identify the report, or a part of it, in every version of a case."""
    value = "/".join((str(uuid.uuid5(NAMESPACE, case.key)), *parts))
    return {"system": OWN_IDS, "value": value}


def _severe_warnings(case: Case) -> list[Resource]:
    severe = [one.sentence for one in case_warnings(case, "en") if one.is_severe]
    return [{"text": text} for text in (RESEARCH_USE, *severe)]


def _range(n_range: tuple[int, int], by_model: int) -> list[Resource]:
    return [
        _number("Fewest that uncertain glomeruli allow", n_range[0]),
        _number("Most that uncertain glomeruli allow", n_range[1]),
        _number("By the model alone", by_model),
    ]


def _grade(rules: RuleSet, item: ItemResult, grade: Grade) -> Resource:
    code = rules.code(item.item, grade)
    coding = {"system": OWN_CODES, "code": code, "display": grade.name or grade.grade}
    return {"coding": [coding], "text": grade.grade}


def _labels(case: Case, labels: LabelSet) -> Resource:
    present = [label for label in case.taxonomy.labels if labels and label.id in labels]
    # Codings of one concept must mean the same, which several labels do not.
    coding = _hpo(present) if len(present) == 1 else {}
    return coding | {"text": labels_name(labels, case.taxonomy, "en")}


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


def _clean(found: Any) -> Any:  # noqa: ANN401
    """Remove control characters, which FHIR does not allow, from every string."""
    if isinstance(found, dict):
        return {key: _clean(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_clean(one) for one in found]
    return clean_text(found) if isinstance(found, str) else found


def _url(version: str, part: str) -> str:
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, f'{version}/{part}')}"
