"""A case as FHIR R4: a bundle of one DiagnosticReport and its Observations, coded by HPO.

Counts carry HPO codes from the taxonomy; no diagnosis is ever coded. The report is *preliminary*,
after a correction too: a person, not a program, makes it final. Bundle and resources of another
content have other UUIDs; the identifiers stay, and tell a receiver what is a version of what.
"""

import hashlib
import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from fhir.resources.R4B.bundle import Bundle

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import Correction
from glomerulab.reports.case.fhir_observations import (
    NAMESPACE,
    Resource,
    identifier,
    observations,
    subject,
)
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.warnings import case_warnings
from glomerulab.reports.case.words import moment, reading_words, words
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import clean_text

__all__ = ["case_bundle", "write_case_fhir"]

SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
NOTE = words("en")["research_only"]


def case_bundle(case: Case) -> Bundle:
    """Return a case as a validated bundle.

    Parameters
    ----------
    case : ReportedCase

    Returns
    -------
    Bundle
        Of type ``collection``; the patient is named by identifier only. ``timestamp`` and
        ``issued`` are the time of the newest word in it.
    """
    resources: list[Resource] = _clean([_report(case), *observations(case)])
    said = json.dumps(resources, sort_keys=True)
    version = f"{case.mark}/{hashlib.sha256(said.encode()).hexdigest()}"
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
    """Write the bundle as JSON, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    path : Path
        Replaced if it exists.
    """
    text = str(case_bundle(case).model_dump_json(indent=2))
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _report(case: Case) -> Resource:
    return {
        "resourceType": "DiagnosticReport",
        "identifier": [identifier(case)],
        "status": "preliminary",
        "category": [{"coding": [{"system": SECTION, "code": "PAT", "display": "Pathology"}]}],
        "code": {"text": "Glomeruli counted by a program (research use only)"},
        "subject": subject(case),
        "effectiveDateTime": case.facts.created,
        "issued": case.last_modified.isoformat(),
        "conclusion": "\n".join([f"{case_view(case, 'en').headline}. {NOTE}", *_told(case)]),
    }


def _told(case: Case) -> list[str]:
    """Say what a reader must know before the numbers, and what people changed, a line each."""
    lines = [words("en")["synthetic"]] if case.facts.is_synthetic else []
    lines += [one.sentence for one in case_warnings(case, "en", max_listed=None)]
    if case.corrections:
        alone = case_view(replace(case, summary=case.original), "en").headline
        lines.append(f"By the model alone: {alone}.")
    return lines + [_word(case, entry) for entry in case.latest_corrections.values()]


def _word(case: Case, entry: Correction) -> str:
    """Say of one image what counts, who said so and why. R4 reports have no notes for it."""
    called = next(one.called for one in case.calls if one.image_id == entry.image_id)
    now, before = (reading_words(one, case.taxonomy, "en") for one in (entry.reading, called))
    done, what = "changed", f"{now} instead of {before}"
    if entry.image_id in case.confirmed:
        done, what = "confirmed", now
    return (
        f"Image {entry.image_id} {done} by {entry.by}, {moment(entry.time)}: {what}. "
        f"Reason: {entry.reason}"
    )


def _clean(found: Any) -> Any:  # noqa: ANN401
    """Take the control characters, which FHIR allows nowhere, from every string."""
    if isinstance(found, dict):
        return {key: _clean(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_clean(one) for one in found]
    return clean_text(found) if isinstance(found, str) else found


def _url(version: str, part: str) -> str:
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, f'{version}/{part}')}"
