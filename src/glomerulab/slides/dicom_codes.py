"""Codes and UIDs of our own in DICOM files."""

import hashlib
import json

import highdicom as hd
from highdicom.sr import CodedConcept

from glomerulab.runtime.names import clean_text

__all__ = ["code_meaning", "own", "uid"]

OWN = "99GLOMERULAB"
MAX_MEANING = 64


def own(code: str, meaning: str) -> CodedConcept:
    """Return a code of our own; its meaning is cut to what DICOM allows."""
    return CodedConcept(code, OWN, code_meaning(meaning))


def uid(*parts: str) -> hd.UID:
    """Return a UID derived from what it identifies."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return hd.UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def code_meaning(name: str) -> str:
    """Cut a meaning to 64 characters without backslashes; the code remains unambiguous.

    DICOM counts characters and some readers count bytes: a cut meaning satisfies both.
    """
    cleaned = " ".join(clean_text(name).replace("\\", "/").split())
    if len(cleaned.encode()) <= MAX_MEANING:
        return cleaned
    return cleaned.encode()[: MAX_MEANING - 3].decode(errors="ignore") + "..."
