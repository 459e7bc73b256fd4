"""Translate texts whose values are filled in already: messages, and paragraphs of sentences."""

import re
from collections.abc import Callable, Mapping
from functools import cache, partial

from glomerulab.i18n.catalogue import Language, catalogue, translate

__all__ = ["translate_filled"]

BRACES = re.compile(r"\\\{(\w+)\\\}")  # as `re.escape` writes them
NUMBERS = frozenset({"n", "m", "k"})
LIST_WORDS = 2
"""Of each part of a list of names, whose commas are those of the language."""
LABEL, LOGIN = "label", "login"
"""Starts of the names of fields that hold ids of labels, and those whose values stay."""


def translate_filled(
    text: str,
    language: Language,
    part: str,
    *,
    names: Callable[[], Mapping[str, str]] = dict,
) -> str:
    """Translate a text whose values are filled in already, sentence by sentence.

    For texts that other programs read in English too, such as messages of errors and the texts of
    ``scores.json``.

    Parameters
    ----------
    text : str
    language : {"en", "zh"}
    part : str
        The file of the catalogue. A key's names in braces match any values, ``{n}``, ``{m}`` and
        ``{k}`` numbers. Values are translated in turn, but for ``{login…}``; ``{label…}`` holds
        ids.
    names : callable, optional
        Called to get names in the language that the catalogue does not know: of labels by their
        ids for ``{label…}``, which are put in in English too, and in other places by their text.

    Returns
    -------
    str
        Sentences that the catalogue does not know stay as they are.
    """
    if language == "en":
        return _translated(text, language, part, names, steps=((None, "", 0),))
    exact = catalogue(language, part).get(text) or names().get(text)
    return exact or _translated(text, language, part, names, steps=_STEPS)


_STEPS: tuple[tuple[str | None, str, int], ...] = (
    (r"\n", "\n", 1000),
    (r"(?<=[.!?”]) (?=[A-Z`“†])", " ", 1000),
    ("; ", "sign|; ", 12),
    (", ", "sign|, ", 0),
)
"""Where a text is parted; before that, the patterns of at least so many letters are tried."""


def _translated(
    text: str,
    language: Language,
    part: str,
    names: Callable[[], Mapping[str, str]],
    *,
    steps: tuple[tuple[str | None, str, int], ...],
) -> str:
    translated = partial(translate_filled, language=language, part=part, names=names)
    for separator, joint, least in steps:
        for n_letters, pattern, key in _patterns(part):
            if n_letters < least:
                break
            if language == "en" and f"{{{LABEL}" not in key:
                continue
            if found := pattern.fullmatch(text):
                values = {
                    field: _value(field, value, language, translated, names)
                    for field, value in found.groupdict().items()
                }
                return (catalogue(language, part).get(key) or key).format(**values)
        parts = re.split(separator, text) if separator else [text]
        if len(parts) > 1:
            known = list(map(translated, parts))
            is_list = all(len(one.split()) <= LIST_WORDS for one in parts)
            is_unknown = known == parts and not is_list
            return text if is_unknown else translate(joint, language).join(known)
    return text


def _value(
    field: str,
    value: str,
    language: Language,
    translated: Callable[[str], str],
    names: Callable[[], Mapping[str, str]],
) -> str:
    if field.startswith(LABEL):
        known = names()
        return translate("sign|, ", language).join(known.get(one, one) for one in value.split(", "))
    return value if field.startswith(LOGIN) else translated(value)


@cache
def _patterns(part: str) -> tuple[tuple[int, re.Pattern[str], str], ...]:
    """Return the keys with names in braces and what matches them, those with most letters first."""

    def value(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{r'[0-9.,]+' if found[1] in NUMBERS else '.+?'})"

    patterns = [
        (
            len(re.sub(r"\{\w+\}|\W", "", key)),
            re.compile(BRACES.sub(value, re.escape(key)), re.DOTALL),
            key,
        )
        for key in catalogue("zh", part)
        if "{" in key
        and "|" not in key
        and len(set(BRACES.findall(re.escape(key)))) == key.count("{")
    ]
    return tuple(sorted(patterns, key=lambda pattern: -pattern[0]))
