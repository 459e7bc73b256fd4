"""DICOM slides are several files: which of a folder's files make one slide."""

from pathlib import Path

import pydicom
from pydantic import BaseModel, ConfigDict, Field
from pydicom.errors import InvalidDicomError

from glomerulab.errors import SlideError
from glomerulab.slides.openslide_source import OpenSlideSource, detect_vendor

__all__ = [
    "DICOM_SUFFIXES",
    "DicomReference",
    "dicom_files",
    "dicom_reference",
    "one_file_per_series",
]

DICOM_SUFFIXES = (".dcm", ".dicom")
TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "TotalPixelMatrixColumns",
]
SERIES_PROPERTY = "dicom.SeriesInstanceUID"


class DicomReference(BaseModel):
    """Study, series and instances of a DICOM slide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_uid: str
    series_uid: str
    instances: tuple[tuple[str, str], ...] = Field(min_length=1)
    """SOP class and SOP instance of each level of the slide, the largest first."""


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files that lie directly in a folder, by name.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Path
    """
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in DICOM_SUFFIXES and path.is_file() and path.name[0] != "."
    )


def one_file_per_series(files: list[Path]) -> list[Path]:
    """Keep the first file of each series; OpenSlide finds the others beside it.

    Parameters
    ----------
    files : list of Path
        As `dicom_files` gives them.

    Returns
    -------
    list of Path
        A file that cannot be opened is kept, so that whoever opens it learns why.
    """
    first_of: dict[str, Path] = {}
    for path in files:
        first_of.setdefault(_series(path), path)
    return list(first_of.values())


def dicom_reference(path: Path) -> DicomReference | None:
    """Return what names a DICOM slide in an archive.

    Parameters
    ----------
    path : Path
        Any file of the slide; the others of its series are looked for beside it.

    Returns
    -------
    DicomReference or None
        None where the file is not DICOM. Only the levels of the slide itself are named, not its
        thumbnail, label or overview.
    """
    own = _header(path)
    if own is None:
        return None
    beside = (one for one in map(_header, dicom_files(path.parent)) if one is not None)
    series = {
        str(one.SOPInstanceUID): one
        for one in (own, *beside)
        if one.SeriesInstanceUID == own.SeriesInstanceUID
    }
    levels = [one for one in series.values() if "VOLUME" in one.get("ImageType", [])]
    levels.sort(key=lambda one: -int(one.get("TotalPixelMatrixColumns", 0)))
    return DicomReference(
        study_uid=str(own.StudyInstanceUID),
        series_uid=str(own.SeriesInstanceUID),
        instances=tuple((str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in levels or [own]),
    )


def _header(path: Path) -> pydicom.Dataset | None:
    """Read what names a file; None where it is no DICOM file or lacks its names."""
    try:
        found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except (InvalidDicomError, OSError):
        return None
    return found if all(tag in found for tag in TAGS[:4]) else None


def _series(path: Path) -> str:
    try:
        if detect_vendor(path) is None:
            return str(path)
        source = OpenSlideSource(path)
    except SlideError:
        return str(path)
    try:
        return source.properties.get(SERIES_PROPERTY, str(path))
    finally:
        source.close()
