"""The words of case reports in English and Chinese."""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from glomerulab.calls import Reading
from glomerulab.report.rules import Grade, Item, RuleSet
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["Language", "grade_name", "name_of", "reading_words", "words"]

Language = Literal["en", "zh"]


@cache
def words(language: Language) -> dict[str, str]:
    """Return every phrase of a language by its key."""
    text = resources.files("glomerulab.report").joinpath("words.toml").read_text("utf-8")
    return {key: phrase[language] for key, phrase in tomllib.loads(text).items()}


def name_of(thing: Label | Item | RuleSet, language: Language) -> str:
    """Return a name in a language, in English where there is no other."""
    return (thing.name_zh if language == "zh" else thing.name) or thing.name


def grade_name(grade: Grade, language: Language) -> str:
    """Return a grade with what it means, such as ``IV-like (diffuse, 50 % or more)``."""
    meaning = (grade.name_zh if language == "zh" else grade.name) or grade.name
    return f"{grade.grade} ({meaning})" if meaning else grade.grade


def reading_words(reading: Reading, taxonomy: Taxonomy, language: Language) -> str:
    """Return a reading as a person says it."""
    if reading is None:
        return words(language)["not_a_glomerulus"]
    names = [name_of(label, language) for label in taxonomy.labels if label.id in reading]
    return " + ".join(names) or words(language)["none"]
