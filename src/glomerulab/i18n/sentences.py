"""Translate whole paragraphs whose values are filled in, sentence by sentence."""

import re
from collections.abc import Mapping
from functools import cache, partial

from glomerulab.i18n.catalogue import Language, catalogue, translate

__all__ = ["translate_filled"]


def translate_filled(
    text: str, language: Language, part: str, *, names: Mapping[str, str] | None = None
) -> str:
    """Translate a text whose values are filled in already, sentence by sentence.

    For texts that other programs read in English too, such as those of ``scores.json``.

    Parameters
    ----------
    text : str
    language : {"en", "zh"}
    part : str
        The file of the catalogue. A key's names in braces match any values, which are translated
        in turn.
    names : mapping of str to str, optional
        Names that the catalogue does not know, such as those of labels.

    Returns
    -------
    str
        Sentences that the catalogue does not know stay as they are.
    """
    if language == "en" or not text:
        return text
    translated = partial(translate_filled, language=language, part=part, names=names)
    exact = (names or {}).get(text) or catalogue(language, part).get(text)
    if exact:
        return exact
    for separator, joint, least in _STEPS:
        for n_letters, pattern, translation in _patterns(language, part):
            if n_letters < least:
                break
            if found := pattern.fullmatch(text):
                values = found.groupdict().items()
                return translation.format(**{name: translated(value) for name, value in values})
        parts = re.split(separator, text)
        if len(parts) > 1:
            return translate(joint, language).join(map(translated, parts))
    return text


_STEPS = (
    (r"\n", "\n", 1000),
    (r"(?<=[.!?”]) (?=[A-Z`“†])", " ", 1000),
    ("; ", "sign|; ", 12),
    (", ", "sign|, ", 0),
)
"""Where a text is parted; before that, the patterns of at least so many letters are tried."""


@cache
def _patterns(language: Language, part: str) -> tuple[tuple[int, re.Pattern[str], str], ...]:
    """Return the keys with names in braces as patterns, those with the most letters first.

    The names ``n`` and ``m`` match numbers, others anything.
    """

    def value(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{r'[0-9.,]+' if found[1] in {'n', 'm'} else '.+?'})"

    patterns = [
        (
            len(re.sub(r"\{\w+\}|\W", "", key)),
            re.compile(re.sub(r"\\\{(\w+)\\\}", value, re.escape(key)), re.DOTALL),
            translation,
        )
        for key, translation in catalogue(language, part).items()
        if "{" in key
    ]
    return tuple(sorted(patterns, key=lambda one: -one[0]))
