"""The language of a page: chosen, else the browser's."""

from fastapi import Request

from glomerulab.i18n.catalogue import LANGUAGES, Language

__all__ = ["LANGUAGE_COOKIE", "language_of"]

LANGUAGE_COOKIE = "glomerulab_language"


def language_of(request: Request) -> Language:
    """Return the chosen language, else the browser's first if it is available, else English.

    It is chosen by the parameter ``language`` of the address or by the cookie of an earlier choice.
    """
    chosen = (request.query_params.get("language"), request.cookies.get(LANGUAGE_COOKIE))
    for wanted in chosen:
        for language in LANGUAGES:
            if language == wanted:
                return language
    first = request.headers.get("accept-language", "").lower().split(",")[0].strip()
    return "zh" if first.startswith("zh") else "en"
