"""Whether a judgement is one that a person may save. Pure values."""

import math

from glomerulab.apps.annotation.records import Judgement, Labels
from glomerulab.errors import AnnotationError
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "MAX_NOTE_LENGTH",
    "checked_judgement",
    "checked_labels",
    "checked_seconds",
    "checked_text",
]

MAX_NOTE_LENGTH = 4000
"""Characters of a note, and of the reason for a skip."""

MAX_SECONDS = 86_400.0
"""A day: a page left open is no time spent."""


def checked_judgement(judgement: Judgement, taxonomy: Taxonomy) -> Judgement:
    """Return a judgement with every label of the taxonomy, or refuse it.

    Parameters
    ----------
    judgement : Judgement
    taxonomy : Taxonomy

    Returns
    -------
    Judgement
        Absent labels are None, unknown; texts are stripped.

    Raises
    ------
    AnnotationError
        If the labels are refused (`checked_labels`), a skipped image carries labels, or a text is
        too long.
    """
    labels = checked_labels(judgement.labels, taxonomy)
    note = checked_text(judgement.note)
    reason = None if judgement.skip_reason is None else checked_text(judgement.skip_reason)
    if reason == "":
        raise AnnotationError("to skip an image, say why")
    if reason is not None and any(value is not None for value in labels.values()):
        raise AnnotationError("a skipped image carries no label; take them off or do not skip it")
    return Judgement(labels, judgement.unsure, reason, note)


def checked_labels(labels: Labels, taxonomy: Taxonomy) -> dict[str, int | None]:
    """Return every label of the taxonomy, in its order, or refuse them.

    Parameters
    ----------
    labels : mapping of str to int or None
        Absent is unknown.
    taxonomy : Taxonomy

    Returns
    -------
    dict of str to int or None

    Raises
    ------
    AnnotationError
        If a label is unknown to the taxonomy, is not 1, 0 or None, or excludes another that is
        set.
    """
    surplus = sorted(set(labels) - set(taxonomy.label_ids))
    if surplus:
        known = ", ".join(taxonomy.label_ids)
        raise AnnotationError(f"unknown label(s) {', '.join(surplus)}; known are {known}")
    for label_id, value in labels.items():
        if value is not None and (type(value) is not int or value not in {0, 1}):
            raise AnnotationError(f"{label_id} must be 1, 0 or unknown, got {value!r}")
    conflicts = taxonomy.conflicts(labels)
    if conflicts:
        first, second = conflicts[0]
        raise AnnotationError(f"{first} and {second} exclude each other; only one can be set")
    return {label_id: labels.get(label_id) for label_id in taxonomy.label_ids}


def checked_seconds(seconds: float) -> float:
    """Return the time spent, in seconds, at most a day.

    Parameters
    ----------
    seconds : float

    Returns
    -------
    float
        To the millisecond.

    Raises
    ------
    AnnotationError
        If it is negative or not a number.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise AnnotationError(f"the time spent must be a number of at least 0, got {seconds}")
    return round(min(seconds, MAX_SECONDS), 3)


def checked_text(text: str) -> str:
    """Return a note without surrounding space.

    Parameters
    ----------
    text : str

    Returns
    -------
    str

    Raises
    ------
    AnnotationError
        If it is too long, or holds what no database keeps.
    """
    text = text.strip()
    if len(text) > MAX_NOTE_LENGTH:
        raise AnnotationError(
            f"a note has at most {MAX_NOTE_LENGTH} characters, this one has {len(text)}"
        )
    if "\x00" in text:  # PostgreSQL refuses it
        raise AnnotationError("a note cannot hold the character NUL")
    return text
