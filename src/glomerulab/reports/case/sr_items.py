"""Codes, texts and UIDs as the SR of a case holds them.

HPO is no scheme that DICOM registers, so its codes carry the designator ``99HPO`` with the full
meaning. Codes of our own can be read; those past 16 characters become Long Code Values.
"""

import hashlib
import json

import highdicom as hd
from highdicom.sr import (
    CodedConcept,
    Measurement,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes

from glomerulab.cases.calls import LabelSet
from glomerulab.cases.corrections import NOT_A_GLOMERULUS
from glomerulab.reports.case.words import reading_words
from glomerulab.runtime.names import clean_text
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["label_code", "number", "own", "percent", "readings", "text", "uid"]

OWN = "99GLOMERULAB"
HPO = "99HPO"
MAX_MEANING = 64


def own(code: str, meaning: str) -> CodedConcept:
    """Make a code of our own; DICOM holds 64 characters of its meaning, and no backslash."""
    return CodedConcept(code, OWN, _meaning(meaning))


def label_code(label: Label) -> CodedConcept:
    """Code a label by HPO where it has a code."""
    if label.hpo:
        return CodedConcept(label.hpo, HPO, _meaning(label.name))
    return own(f"is/{label.id}", label.name)


def readings(
    name: CodedConcept, reading: LabelSet, taxonomy: Taxonomy
) -> list[QualitativeEvaluation]:
    """Say what is shown: one evaluation per label."""
    shown = [label for label in taxonomy.labels if reading and label.id in reading]
    values = [label_code(label) for label in shown]
    if not values:
        code = NOT_A_GLOMERULUS if reading is None else "none"
        values = [own(code, reading_words(reading, taxonomy, "en"))]
    return [QualitativeEvaluation(name, value) for value in values]


def number(code: str, meaning: str, value: float) -> Measurement:
    """Make a measurement without unit."""
    return Measurement(own(code, meaning), value, codes.UCUM.NoUnits)


def percent(code: str, meaning: str, share: float) -> Measurement:
    """Make a measurement in percent of a share from 0 to 1."""
    return Measurement(own(code, meaning), round(100 * share, 2), codes.UCUM.Percent)


def text(code: str, meaning: str, value: str) -> TextContentItem:
    """Make a text, which no length cuts short."""
    return TextContentItem(own(code, meaning), clean_text(value), RelationshipTypeValues.CONTAINS)


def uid(*parts: str) -> hd.UID:
    """Make a UID of what it names."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return hd.UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _meaning(name: str) -> str:
    """Make a code's meaning: it names no thing, the code does, and may be cut.

    DICOM counts characters. Some readers count bytes: what is cut is short by either.
    """
    plain = " ".join(clean_text(name).replace("\\", "/").split())
    if len(plain.encode()) <= MAX_MEANING:
        return plain
    return plain.encode()[: MAX_MEANING - 3].decode(errors="ignore") + "..."
