"""Translations of the English texts in the code, kept in ``zh/*.toml``.

The English text itself is the key, so that code and templates read as the page looks. Where one
English text needs two translations, the key carries a context: ``"map|Case"``.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

__all__ = [
    "LANGUAGES",
    "Language",
    "catalogue",
    "language_name",
    "localized",
    "translate",
    "translate_count",
]

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@cache
def catalogue(language: Language, part: str | None = None) -> Mapping[str, str]:
    """Return the translations of a language by their English text; empty for English.

    `part` names one file of the catalogue, such as ``annotation``; the default is all of them.
    """
    if language == "en":
        return {}
    folder = resources.files("glomerulab.i18n") / language
    texts: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if part is None or file.name == f"{part}.toml":
            texts |= tomllib.loads(file.read_text("utf-8"))
    return texts


def language_name(language: Language) -> str:
    """Return a language's own name."""
    return translate("language|English", language)


def translate(text: str, language: Language, **values: object) -> str:
    """Return the translation of an English text, with the names in braces filled in.

    Parameters
    ----------
    text : str
        English, perhaps with a context in front (``"map|Case"``) and with names in braces. Returned
        itself where the catalogue has no translation.
    language : {"en", "zh"}
    **values
        Values of the names in braces; without any, the text is not formatted.

    Examples
    --------
    >>> translate("Note", "zh") == translate("Note", "en")
    False
    >>> translate("map|Case", "en")
    'Case'
    """
    found = catalogue(language).get(text) or text.partition("|")[2] or text
    return found.format(**values) if values else found


def translate_count(
    number: int, singular: str, plural: str, language: Language, /, **values: object
) -> str:
    """Translate the English text that fits a number, and fill it in for ``{n}``.

    Examples
    --------
    >>> translate_count(2, "{n} image", "{n} images", "en")
    '2 images'
    """
    return translate(singular if number == 1 else plural, language, n=number, **values)


def localized(thing: object, field: str, language: Language) -> str:
    """Return a field such as ``name`` in a language: ``name_zh``, or ``name`` where that is empty.

    For texts that files carry in both languages: labels, rule sets, facts of a model.
    """
    text: str = getattr(thing, f"{field}_{language}", None) or getattr(thing, field)
    return text
