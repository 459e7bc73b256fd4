"""Check what an annotator enters before it is saved."""

import math

from glomerulab.apps.annotation.records import AnnotationContent, Labels
from glomerulab.errors import AnnotationError
from glomerulab.taxonomy import Taxonomy

MAX_NOTE_LENGTH = 4000  # characters of a note, and of the reason for a skip
MAX_SECONDS = 86_400.0  # a day: a page left open is not time spent


def validate_content(content: AnnotationContent, taxonomy: Taxonomy) -> AnnotationContent:
    """Return the content with every label of the taxonomy and stripped texts."""
    labels = validate_labels(content.labels, taxonomy)
    note = validate_text(content.note)
    reason = None if content.skip_reason is None else validate_text(content.skip_reason)
    if reason == "":
        raise AnnotationError("a skipped image needs a reason; give one or set a label")
    if reason is not None and any(value is not None for value in labels.values()):
        raise AnnotationError("a skipped image has no labels; clear them or do not skip it")
    return AnnotationContent(labels, content.unsure, reason, note)


def validate_labels(labels: Labels, taxonomy: Taxonomy) -> dict[str, int | None]:
    """Return every label of the taxonomy, in its order; absent labels are None, unknown."""
    unknown = sorted(set(labels) - set(taxonomy.label_ids))
    if unknown:
        known = ", ".join(taxonomy.label_ids)
        raise AnnotationError(f"unknown label(s) {', '.join(unknown)}; known are {known}")
    for label_id, value in labels.items():
        if value is not None and (type(value) is not int or value not in {0, 1}):
            raise AnnotationError(f"label {label_id} must be 1, 0 or unknown, got {value!r}")
    conflicts = taxonomy.conflicts(labels)
    if conflicts:
        first, second = conflicts[0]
        raise AnnotationError(f"{first} and {second} exclude each other; set only one of them")
    return {label_id: labels.get(label_id) for label_id in taxonomy.label_ids}


def validate_seconds(seconds: float) -> float:
    """Return the time spent to the millisecond, at most a day."""
    if not math.isfinite(seconds) or seconds < 0:
        raise AnnotationError(f"the time spent must be a number of at least 0, got {seconds}")
    return round(min(seconds, MAX_SECONDS), 3)


def validate_text(text: str) -> str:
    """Return a note without surrounding space; it must fit the database."""
    text = text.strip()
    if len(text) > MAX_NOTE_LENGTH:
        raise AnnotationError(
            f"a note has at most {MAX_NOTE_LENGTH} characters, this one has {len(text)}"
        )
    if "\x00" in text:  # PostgreSQL refuses it
        raise AnnotationError("a note cannot contain the character NUL; remove it")
    return text
