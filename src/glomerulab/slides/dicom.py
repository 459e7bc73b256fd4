"""Headers of DICOM files, as far as a damaged one can be read."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glomerulab.errors import SlideError

if TYPE_CHECKING:  # few slides are DICOM, and pydicom takes a while to load
    import pydicom

__all__ = ["read_file", "read_header"]

DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    UserWarning,
    ValueError,
    struct.error,
)
"""What pydicom raises for damaged files."""


def read_header(path: Path, tags: Sequence[str]) -> "pydicom.Dataset | None":
    """Read tags of a DICOM file, by keyword; None where it is not DICOM or they are damaged."""
    try:
        return _read(path, stop_before_pixels=True, specific_tags=list(tags))
    except DAMAGE:
        return None


def read_file(path: Path) -> "pydicom.FileDataset":
    """Read a DICOM file with its pixels.

    Raises
    ------
    SlideError
        If it is damaged.
    """
    try:
        return _read(path)
    except DAMAGE as error:
        raise SlideError("the DICOM file is damaged; copy it again", where=str(path)) from error


def _read(path: Path, **options: Any) -> "pydicom.FileDataset":  # noqa: ANN401 - of pydicom
    import pydicom

    with warnings.catch_warnings():
        # Values of an unusual form are no damage; a file that ends early is.
        warnings.simplefilter("ignore", UserWarning)
        warnings.filterwarnings("error", "End of file", UserWarning)
        try:
            found = pydicom.dcmread(path, **options)
            for _ in found.iterall():  # values are decoded when they are used first
                pass
        except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
            raise ValueError(str(error)) from error
    return found
