"""A case as FHIR R4: a bundle of one DiagnosticReport and its Observations, coded by HPO.

Counts carry HPO codes from the taxonomy; no diagnosis is ever coded. The report is *preliminary*: a
person, not a program, makes it final.
"""

import uuid
from pathlib import Path
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from glomerulab.files import written_whole
from glomerulab.report.apply_rules import ItemResult
from glomerulab.report.case_summary import LabelCount
from glomerulab.report.case_view import case_view
from glomerulab.report.case_warnings import case_warnings
from glomerulab.report.reported_case import ReportedCase
from glomerulab.report.rules import RuleSet
from glomerulab.report.words import words

__all__ = ["case_bundle", "write_case_fhir"]

HPO = "http://human-phenotype-ontology.org"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
UCUM = "http://unitsofmeasure.org"
NAMESPACE = uuid.UUID("2c0c7a5e-6a2b-5f0e-9d36-0b7e5c2f4a90")
NOTE = words("en")["research_only"]

Resource = dict[str, Any]


def case_bundle(case: ReportedCase) -> Bundle:
    """Return a case as a validated bundle.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    Bundle
        Of type ``collection``; the patient is named by identifier only.
    """
    observations = [_count(case, one) for one in case.summary.labels]
    observations += [
        _item(case, result.rule_set, item, has_enough=result.has_enough)
        for result in case.summary.rules
        for item in result.items
    ]
    identified = [(_url(case, str(place)), one) for place, one in enumerate(observations)]
    report = _report(case, [url for url, _ in identified])
    entries = [{"fullUrl": _url(case, "report"), "resource": report}]
    entries += [{"fullUrl": url, "resource": one} for url, one in identified]
    facts = {"resourceType": "Bundle", "type": "collection", "timestamp": case.facts.created}
    bundle: Bundle = Bundle.model_validate({**facts, "entry": entries})
    return bundle


def write_case_fhir(case: ReportedCase, path: Path) -> None:
    """Write the bundle as JSON, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists.
    """
    text = str(case_bundle(case).model_dump_json(indent=2))
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _report(case: ReportedCase, results: list[str]) -> Resource:
    return {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "category": [{"coding": [{"system": SECTION, "code": "PAT", "display": "Pathology"}]}],
        "code": {"text": "Glomeruli counted by a program (research use only)"},
        "subject": _subject(case),
        "effectiveDateTime": case.facts.created,
        "issued": case.facts.created,
        "result": [{"reference": url} for url in results],
        "conclusion": "\n".join([f"{case_view(case, 'en').headline}. {NOTE}", *_told(case)]),
    }


def _told(case: ReportedCase) -> list[str]:
    """Say what a reader must know before the numbers, a line each."""
    lines = [words("en")["synthetic"]] if case.facts.is_synthetic else []
    return lines + [one.sentence for one in case_warnings(case, "en", max_listed=None)]


def _count(case: ReportedCase, one: LabelCount) -> Resource:
    code: Resource = {"text": f"Glomeruli: {one.label.name}"}
    if one.label.hpo:
        code["coding"] = [{"system": HPO, "code": one.label.hpo, "display": one.label.name}]
    found = {**_observation(case, code), "valueInteger": one.n_with}
    # A record shows an Observation without its report: what the number rests on goes with it.
    severe = [told.sentence for told in case_warnings(case, "en") if told.is_severe]
    found["note"] = [{"text": text} for text in (NOTE, *severe)]
    components = [_number("Glomeruli in all", one.n_of)]
    if one.interval is not None and one.share is not None:
        low, high = one.interval
        components += [
            _percent("Share of glomeruli", one.share),
            _percent("Share, lower end of the 95 % interval (Wilson)", low),
            _percent("Share, upper end of the 95 % interval (Wilson)", high),
        ]
    components += [
        _number("Fewest that uncertain glomeruli allow", one.n_range[0]),
        _number("Most that uncertain glomeruli allow", one.n_range[1]),
    ]
    return found | {"component": components}


def _item(case: ReportedCase, rules: RuleSet, item: ItemResult, *, has_enough: bool) -> Resource:
    name = f"{rules.name} {rules.version}: {item.item.name}"
    found = _observation(case, {"text": name})
    notes = [NOTE, *item.caveats]
    if item.grade is None:
        absent = {"system": ABSENT, "code": "not-performed", "display": "Not Performed"}
        found["dataAbsentReason"] = {"coding": [absent], "text": item.not_assessed}
    else:
        found["valueCodeableConcept"] = {"text": item.grade.grade}
        if not item.is_certain:
            possible = ", ".join(grade.grade for grade in item.possible)
            notes.append(f"Uncertain glomeruli allow: {possible}.")
        if not has_enough:
            notes.append(
                f"Fewer than the {rules.min_glomeruli} glomeruli that the source asks for."
            )
    return found | {"note": [{"text": text} for text in notes]}


def _observation(case: ReportedCase, code: Resource) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "preliminary",
        "code": code,
        "subject": _subject(case),
        "effectiveDateTime": case.facts.created,
        "device": {"display": f"glomerulab {case.facts.glomerulab}, {case.facts.model.model}"},
        "note": [{"text": NOTE}],
    }


def _subject(case: ReportedCase) -> Resource:
    return {"type": "Patient", "identifier": {"value": case.patient}}


def _number(text: str, value: int) -> Resource:
    return {"code": {"text": text}, "valueInteger": value}


def _percent(text: str, share: float) -> Resource:
    quantity = {"value": round(100 * share, 2), "unit": "%", "system": UCUM, "code": "%"}
    return {"code": {"text": text}, "valueQuantity": quantity}


def _url(case: ReportedCase, part: str) -> str:
    name = f"{case.facts.model.weights_sha256}/{case.facts.created}/{case.patient}/{part}"
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, name)}"
