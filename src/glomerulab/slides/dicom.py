"""Headers of DICOM files, as far as a damaged one can be read."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import pydicom

__all__ = ["read_header"]

DAMAGE = (
    pydicom.errors.InvalidDicomError,
    pydicom.errors.BytesLengthException,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises for damaged files."""


def read_header(path: Path, tags: Sequence[str]) -> pydicom.Dataset | None:
    """Read tags of a DICOM file, by keyword; None where it is not DICOM or they are damaged."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")
        try:
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
            for _ in found.iterall():  # values are decoded when they are used first
                pass
        except DAMAGE:
            return None
    return found
