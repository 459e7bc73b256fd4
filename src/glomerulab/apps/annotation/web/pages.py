"""Render templates in the language of the visitor, with everything escaped."""

from functools import lru_cache

from fastapi import Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from glomerulab.apps.annotation.consensus import skip_reason_text
from glomerulab.apps.annotation.records import Study
from glomerulab.apps.annotation.web.access import csrf_token, get_site
from glomerulab.apps.annotation.web.image_files import reference_pictures
from glomerulab.apps.web.assets import Assets
from glomerulab.apps.web.language import language_of
from glomerulab.i18n.catalogue import (
    LANGUAGES,
    catalogue,
    language_name,
    localized,
    translate,
)
from glomerulab.i18n.sentences import translate_filled
from glomerulab.reports.html import page_environment, script_json
from glomerulab.taxonomy import definition_of

ASSETS = Assets("glomerulab.apps.annotation.web")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = page_environment("glomerulab.apps.annotation.web")
    environment.globals["asset"] = ASSETS.url
    environment.filters["script_json"] = script_json
    environment.filters["sentence"] = _sentence
    environment.filters["skip_reason"] = skip_reason_text
    return environment


def render_page(
    request: Request, template: str, *, status: int = 200, **values: object
) -> HTMLResponse:
    """Render a template below ``templates`` with the given variables."""
    language = language_of(request)

    def translate_text(text: str, **parts: object) -> str:
        return translate(text, language, **parts)

    names = {
        "_": translate_text,
        "language": language,
        "languages": {code: language_name(code) for code in LANGUAGES},
        "path": request.url.path,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "csrf": csrf_token(request),
        "translations": {**catalogue(language, "annotation"), **catalogue(language, "viewer")},
        "account": None,
        **values,
    }
    return HTMLResponse(_environment().get_template(template).render(names), status)


def localized_message(request: Request, message: str) -> str:
    """Return a message in the language of the visitor, with the names of labels for their ids."""
    language = language_of(request)

    def names() -> dict[str, str]:
        labels = get_site(request).study().taxonomy.labels
        return {label.id: localized(label, "name", language) for label in labels}

    return translate_filled(message, language, "annotation", names=names)


def label_guide(request: Request, study: Study) -> list[dict[str, str]]:
    """Return key, name, definition and reference picture of each label, for the viewer."""
    language = language_of(request)
    pictures = reference_pictures(study)
    return [
        {
            "key": str(number),
            "name": localized(label, "name", language),
            "text": definition_of(label, language),
            "picture": f"/labels/{label.id}/picture" if label.id in pictures else "",
        }
        for number, label in enumerate(study.taxonomy.labels, start=1)
    ]


def viewer_texts(request: Request) -> dict[str, str]:
    """Return the translations that the pages with a viewer need."""
    language = language_of(request)
    return {**catalogue(language, "annotation"), **catalogue(language, "viewer")}


def result_line(request: Request, message: str, **parts: object) -> HTMLResponse:
    """Render what an action did, for the place on the page that waits for it."""
    return render_page(request, "result.html.j2", message=message, parts=parts)


def _sentence(message: str) -> str:
    """Return an error message as a sentence: with a capital and a full stop, if it has neither."""
    text = message[:1].upper() + message[1:]
    return f"{text}." if text and text.isascii() and text[-1] not in ".?!" else text
