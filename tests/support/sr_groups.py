"""The content of the measurement groups of an SR, by the displayed names."""

from pathlib import Path

import pydicom
from highdicom.sr import ComprehensiveSR

__all__ = ["groups_of", "images_of", "numbers_of", "question_of", "texts_of", "values_of"]


def texts_of(container) -> dict[str, list[str]]:
    """Every text right below a container, by its name."""
    found: dict[str, list[str]] = {}
    for item in container.ContentSequence:
        if item.ValueType == "TEXT":
            name = item.ConceptNameCodeSequence[0].CodeMeaning
            found.setdefault(name, []).append(item.TextValue)
    return found


def groups_of(path: Path) -> list:
    """Every group of a document, as highdicom reads it."""
    document = ComprehensiveSR.from_dataset(pydicom.dcmread(path))
    return document.content.get_image_measurement_groups()


def images_of(groups) -> dict:
    """By image, its group."""
    named = [(texts_of(group[0]).get("Image", []), group) for group in groups]
    return {name: group for names, group in named for name in names}


def question_of(groups, start: str):
    """The group of the one question that begins so."""
    named = [(texts_of(group[0]).get("Question", [""])[0], group) for group in groups]
    (found,) = [group for name, group in named if name.startswith(start)]
    return found


def values_of(group) -> dict[str, list[str]]:
    """Every evaluation of a group by its name."""
    found: dict[str, list[str]] = {}
    for one in group.get_qualitative_evaluations():
        found.setdefault(one.name.meaning, []).append(one.value.meaning)
    return found


def numbers_of(group) -> dict[str, float]:
    """Every measurement of a group by its name."""
    return {one.name.meaning: one.value for one in group.get_measurements()}
