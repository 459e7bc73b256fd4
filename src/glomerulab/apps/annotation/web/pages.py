"""Templates: a page for a request, in the language of whoever asks, escaped throughout."""

import json
from functools import lru_cache

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse

from glomerulab.apps.annotation.web.access import csrf_token
from glomerulab.apps.web.assets import Assets
from glomerulab.i18n.catalogue import LANGUAGES, Language, catalogue, language_name, translate

__all__ = ["ASSETS", "LANGUAGE_COOKIE", "language_of", "render_page"]

LANGUAGE_COOKIE = "glomerulab_language"
ASSETS = Assets("glomerulab.apps.annotation.web")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("glomerulab.apps.annotation.web"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = ASSETS.url
    environment.filters["script_json"] = _script_json
    return environment


def language_of(request: Request) -> Language:
    """Return the language chosen, else the browser's first that there is, else English."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    for language in LANGUAGES:
        if language == chosen:
            return language
    asked = request.headers.get("accept-language", "").lower()
    first = asked.split(",")[0].strip()
    return "zh" if first.startswith("zh") else "en"


def render_page(
    request: Request, template: str, *, status: int = 200, **values: object
) -> HTMLResponse:
    """Render a template.

    Parameters
    ----------
    request : Request
    template : str
        File name below ``templates``.
    status : int, default 200
    **values
        Names of the template.

    Returns
    -------
    HTMLResponse
    """
    language = language_of(request)

    def say(text: str, **parts: object) -> str:
        return translate(text, language).format(**parts) if parts else translate(text, language)

    names = {
        "_": say,
        "language": language,
        "languages": {code: language_name(code) for code in LANGUAGES},
        "path": request.url.path,
        "csrf": csrf_token(request),
        "words": catalogue(language, "annotation"),
        "account": None,
        **values,
    }
    return HTMLResponse(_environment().get_template(template).render(names), status)


def _script_json(value: object) -> Markup:
    """Return JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False)
    for mark, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(mark, escaped)
    return Markup(text)  # noqa: S704 - no mark that could end the element is left
