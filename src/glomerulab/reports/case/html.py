"""A case as one self-contained HTML file for screen, phone and paper."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import NOT_A_GLOMERULUS, box_text, labels_text
from glomerulab.i18n.catalogue import Language, localized, translate
from glomerulab.reports.case.pictures import (
    UriOf,
    crop_picture,
    data_uri,
    map_uri,
    saliency_uri,
    shows_maps,
    slide_map,
)
from glomerulab.reports.case.surroundings import Surroundings
from glomerulab.reports.case.text import OUTDATED_REASONS, translations_in
from glomerulab.reports.case.view import CaseView, case_view
from glomerulab.reports.html import page_environment
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.names import safe_name
from glomerulab.taxonomy import definition_of

__all__ = ["PagePictures", "ReviewFacts", "page_policy", "render_case_html"]

TEMPLATES = resources.files("glomerulab.reports.case").joinpath("templates")
SHARED = resources.files("glomerulab.reports").joinpath("templates")


@dataclass(frozen=True)
class ReviewFacts:
    """What a page needs of the server that counts its corrections."""

    state: str
    """Of the predictions and corrections that the page shows."""
    n_cases: int


@dataclass(frozen=True)
class PagePictures:
    """Where the pictures of a page come from; by default it holds all of them."""

    uri_of: UriOf | None = None
    """The address of an image file."""
    surroundings: Surroundings | None = None
    """The slides around the glomeruli; without them, the maps show neighbours."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Addresses of pictures that explain the labels, by label id."""


def render_case_html(
    case: Case,
    folder: Path,
    *,
    language: Language = "en",
    review: ReviewFacts | None = None,
    pictures: PagePictures | None = None,
) -> str:
    """Return the page of a case.

    Everything in it is escaped. A content policy forbids the browser to load anything and to run
    scripts other than the page's own.

    Parameters
    ----------
    folder : Path
        Of the predictions, where the crops are.
    review : ReviewFacts, optional
        If a server counts the page's corrections; without one, the browser keeps them until they
        are saved as a file.
    pictures : PagePictures, optional
        By default the page holds crops and maps, and shows neighbours on the maps.
    """
    pictures = pictures or PagePictures()
    view = case_view(case, language)
    uri_of = pictures.uri_of
    maps = [slide_map(one, view.images, folder, uri_of or map_uri) for one in case.slides]
    return (
        page_environment("glomerulab.reports.case")
        .get_template("case.html.j2")
        .render(
            _=partial(translate, language=language),
            view=view,
            language=language,
            is_synthetic=case.facts.is_synthetic,
            maps=[one for one in maps if one is not None],
            pictures={
                call.image_id: crop_picture(call, folder, uri_of or data_uri) for call in case.calls
            },
            contexts=_contexts(case, view, pictures.surroundings),
            saliency={
                call.image_id: saliency_uri(call, folder, uri_of or data_uri)
                if shows_maps(case)
                else ""
                for call in case.calls
            },
            folder=folder.resolve().name,
            facts=_script_facts(case, language, review, pictures.references),
            labels={
                call.image_id: ""
                if case.is_not_assessed(call)
                else labels_text(case.labels_of(call))
                for call in case.calls
            },
            boxes={call.image_id: box_text(call) for call in case.calls},
            n_corrections={call.image_id: case.n_corrections(call) for call in case.calls},
            scripts=[Markup(script) for script in _scripts(review)],  # noqa: S704 - package files
            policy=Markup(page_policy(review)),  # noqa: S704 - package text
            example=case.taxonomy.label_ids[-1],
        )
    )


def write_case_html(
    case: Case,
    folder: Path,
    path: Path,
    *,
    language: Language = "en",
    pictures: PagePictures | None = None,
) -> None:
    """Write the page of a case."""
    text = render_case_html(case, folder, language=language, pictures=pictures)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page_policy(review: ReviewFacts | None) -> str:
    """Return the Content-Security-Policy of a page; with `review` it may call its own server."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
        for script in _scripts(review)
    )
    images = "data:" if review is None else "data: 'self'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src {images}; script-src {hashes}"
    return policy if review is None else f"{policy}; connect-src 'self'"


def _contexts(
    case: Case, view: CaseView, surroundings: Surroundings | None
) -> dict[str, dict[str, Any]]:
    """Return what the viewer shows around each glomerulus, by image id."""
    if surroundings is None:
        return {}
    slides = {one.slide_id: one for one in case.slides}
    found = {
        image.call.image_id: surroundings.of(image, view.images, slides[image.call.slide_id])
        for image in view.images
        if image.call.slide_id in slides
    }
    return {image_id: one for image_id, one in found.items() if one is not None}


def _scripts(review: ReviewFacts | None) -> list[str]:
    names = ["case.js", "case_pictures.js", *([] if review is None else ["case_review.js"])]
    viewer = SHARED.joinpath("picture_viewer.js").read_text("utf-8")
    return [viewer, *(TEMPLATES.joinpath(name).read_text("utf-8") for name in names)]


def _script_facts(
    case: Case, language: Language, review: ReviewFacts | None, references: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page's script needs to record corrections as `overrides.csv` does."""
    labels = {
        one.id: {
            "name": localized(one, "name", language),
            "definition": definition_of(one, language),
            "excludes": [*one.excludes, NOT_A_GLOMERULUS],
        }
        for one in case.taxonomy.labels
    }
    labels[NOT_A_GLOMERULUS] = {
        "name": translate("not a glomerulus", language),
        "definition": translate(
            "A tubule, a vessel, other tissue, or too little to tell.", language
        ),
        "excludes": [],
    }
    for label_id, facts in labels.items():
        facts["picture"] = references.get(label_id, "")
    return {
        "key": _browser_key(case),
        "file": f"{safe_name(case.patient)}.changes.csv",
        "labels": labels,
        "counted": [
            (one.time, one.by, one.image_id, one.labels_text, one.reason)
            for one in case.corrections
        ],
        "review": None if review is None else asdict(review),
        "outdated": {key: translate(text, language) for key, text in OUTDATED_REASONS.items()},
        "translations": translations_in("".join(_scripts(review)), "translate", language),
    }


def _browser_key(case: Case) -> str:
    """Identify a case in the browser's storage, also when its images are predicted again."""
    ids = sorted(call.image_id for call in case.calls)
    parts = json.dumps([case.facts.model.weights_sha256, case.patient, ids])
    return hashlib.sha256(parts.encode()).hexdigest()
