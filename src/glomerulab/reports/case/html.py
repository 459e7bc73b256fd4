"""A case as one HTML file that loads nothing: read on a screen, a phone or paper."""

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import NOT_A_GLOMERULUS, box_text, labels_text
from glomerulab.reports.case.pictures import crop_picture, saliency_uri, slide_map
from glomerulab.reports.case.view import case_view
from glomerulab.reports.case.words import Language, moment, name_of, reading_words, words
from glomerulab.reports.html import page_environment
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import safe_name

__all__ = ["ReviewFacts", "change_rows", "page_policy", "render_case_html", "write_case_html"]


@dataclass(frozen=True)
class ReviewFacts:
    """What a page must know of the program that counts its changes."""

    state: str
    """Of the predictions and changes that the page shows."""
    n_cases: int


def render_case_html(
    case: Case,
    folder: Path,
    *,
    language: Language = "en",
    review: ReviewFacts | None = None,
) -> str:
    """Return the page of a case.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions, where the crops are.
    language : {"en", "zh"}, default "en"
    review : ReviewFacts, optional
        Where a program takes the page's changes and counts them; without one they are kept in the
        browser, to be saved as a file.

    Returns
    -------
    str
        Everything in it is escaped; a content policy forbids the browser to load anything, and to
        run anything but the page's own scripts.
    """
    view = case_view(case, language)
    maps = [slide_map(slide, view.shown, folder) for slide in case.slides]
    return (
        page_environment("glomerulab.reports.case")
        .get_template("case.html.j2")
        .render(
            view=view,
            words=words(language),
            language=language,
            is_synthetic=case.facts.is_synthetic,
            maps=[one for one in maps if one is not None],
            pictures={call.image_id: crop_picture(call, folder) for call in case.calls},
            saliency={call.image_id: saliency_uri(call, folder) for call in case.calls},
            changes=change_rows(case, language),
            folder=folder.resolve().name,
            facts=_script_facts(case, language, review),
            readings={call.image_id: labels_text(case.reading_of(call)) for call in case.calls},
            places={call.image_id: box_text(call) for call in case.calls},
            seen={call.image_id: case.n_corrections(call) for call in case.calls},
            scripts=[Markup(script) for script in _scripts(review)],  # noqa: S704 - our own files
            policy=Markup(page_policy(review)),  # noqa: S704 - our own words
            example=case.taxonomy.label_ids[-1],
        )
    )


def page_policy(review: ReviewFacts | None) -> str:
    """Return the Content-Security-Policy of a page.

    Parameters
    ----------
    review : ReviewFacts or None
        As `render_case_html` is given it; with one, the page may ask its own server.

    Returns
    -------
    str
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
        for script in _scripts(review)
    )
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}"
    return policy if review is None else f"{policy}; connect-src 'self'"


def _scripts(review: ReviewFacts | None) -> list[str]:
    names = ["case.js"] if review is None else ["case.js", "case_review.js"]
    folder = resources.files("glomerulab.reports.case").joinpath("templates")
    return [folder.joinpath(name).read_text("utf-8") for name in names]


def write_case_html(case: Case, folder: Path, path: Path, *, language: Language = "en") -> None:
    """Write the page, whole or not at all.

    Parameters
    ----------
    case : ReportedCase
    folder : Path
        Of the predictions.
    path : Path
        Replaced if it exists.
    language : {"en", "zh"}, default "en"
    """
    text = render_case_html(case, folder, language=language)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _script_facts(case: Case, language: Language, review: ReviewFacts | None) -> dict[str, Any]:
    """Return what the page's script needs to take changes down as `overrides.csv` does."""
    phrase = words(language)
    labels = case.taxonomy.labels
    known = {
        one.id: {"name": name_of(one, language), "excludes": [*one.excludes, NOT_A_GLOMERULUS]}
        for one in labels
    }
    known[NOT_A_GLOMERULUS] = {"name": phrase["not_a_glomerulus"], "excludes": []}
    return {
        "key": _browser_key(case),
        "file": f"{safe_name(case.patient)}.changes.csv",
        "labels": known,
        "counted": [
            (one.time, one.by, one.image_id, one.labels_text, one.reason)
            for one in case.corrections
        ],
        "review": None if review is None else asdict(review),
        "words": {
            key: text
            for key, text in phrase.items()
            if key == "colon" or key.startswith(("change_", "lost_", "review_"))
        },
    }


def _browser_key(case: Case) -> str:
    """Tell this case from others, and know it again when the same images are predicted anew."""
    ids = sorted(call.image_id for call in case.calls)
    said = json.dumps([case.facts.model.weights_sha256, case.patient, ids])
    return hashlib.sha256(said.encode()).hexdigest()


def change_rows(case: Case, language: Language) -> list[tuple[str, ...]]:
    """Return what people changed, a row of text per entry: what applies, then what no longer does.

    Each oldest first.
    """
    calls = {call.image_id: call for call in case.calls}
    rows: list[tuple[str, ...]] = [
        (
            entry.image_id,
            reading_words(calls[entry.image_id].called, case.taxonomy, language),
            reading_words(entry.reading, case.taxonomy, language),
            entry.by,
            moment(entry.time),
            entry.reason,
        )
        for entry in case.corrections
    ]
    rows += [
        (
            lost.row.image_id,
            "–",
            f"{lost.row.labels} ({words(language)[f'lost_{lost.why}']})",
            lost.row.by,
            moment(lost.row.time),
            lost.row.reason,
        )
        for lost in case.lost
    ]
    return rows
