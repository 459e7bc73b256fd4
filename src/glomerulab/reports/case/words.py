"""The words of case reports in English and Chinese."""

import datetime as dt
import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.corrections import parse_time
from glomerulab.cases.rules import Finding, Grade, Item, RuleSet
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["Language", "grade_name", "grade_sign", "moment", "name_of", "reading_words", "words"]

Language = Literal["en", "zh"]


@cache
def words(language: Language) -> dict[str, str]:
    """Return every phrase of a language by its key."""
    text = resources.files("glomerulab.reports.case").joinpath("words.toml").read_text("utf-8")
    return {key: phrase[language] for key, phrase in tomllib.loads(text).items()}


def name_of(thing: Label | Finding | Item | RuleSet, language: Language) -> str:
    """Return a name in a language, in English where there is no other."""
    return (thing.name_zh if language == "zh" else thing.name) or thing.name


def grade_sign(grade: Grade, language: Language) -> str:
    """Return a grade alone, such as ``M1`` or ``IV-like``."""
    return (grade.grade_zh if language == "zh" else grade.grade) or grade.grade


def grade_name(grade: Grade, language: Language) -> str:
    """Return a grade with what it means, such as ``IV-like (diffuse, 50 % or more)``."""
    sign = grade_sign(grade, language)
    if language == "zh":
        meaning = grade.name_zh or grade.name
        return f"{sign}（{meaning}）" if meaning else sign
    return f"{sign} ({grade.name})" if grade.name else sign


def moment(time: str) -> str:
    """Return when an entry was made (ISO 8601) as pages show it: in UTC, to the minute.

    Examples
    --------
    >>> moment("2026-11-25T12:18:09+08:00")
    '2026-11-25 04:18 UTC'
    """
    when = parse_time(time)
    return time if when is None else f"{when.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"


def reading_words(reading: LabelSet, taxonomy: Taxonomy, language: Language) -> str:
    """Return a reading as a person says it."""
    if reading is None:
        return words(language)["not_a_glomerulus"]
    names = [name_of(label, language) for label in taxonomy.labels if label.id in reading]
    return " + ".join(names) or words(language)["none"]
