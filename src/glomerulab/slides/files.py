"""Find slide files: one file per slide, or the files of one DICOM series."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from glomerulab.errors import SlideError
from glomerulab.runtime.files import existing_path, size_and_mtime
from glomerulab.slides.dicom import read_header

if TYPE_CHECKING:
    import pydicom

__all__ = [
    "DICOM_SUFFIXES",
    "SLIDE_SUFFIXES",
    "DicomReference",
    "dicom_reference",
    "dicom_slides",
    "find_slides",
    "slide_series",
    "whole_slides",
]

DICOM_SUFFIXES = (".dcm", ".dicom")
SLIDE_SUFFIXES = (
    ".svs",
    ".tif",
    ".tiff",
    ".ndpi",
    ".mrxs",
    ".scn",
    ".bif",
    ".vms",
    ".vmu",
    ".svslide",
    ".czi",
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    *DICOM_SUFFIXES,
)
"""Suffixes of the slides in a folder; a slide given by its own path may have any."""

TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "TotalPixelMatrixColumns",
]
N_REQUIRED_TAGS = 4
SLIDE_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""


class DicomReference(BaseModel):
    """Study, series and instances of a DICOM slide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_uid: str
    series_uid: str
    instances: tuple[tuple[str, str], ...] = Field(min_length=1)
    """SOP class and SOP instance of each level of the slide, the largest first."""


def find_slides(path: Path) -> list[Path]:
    """Return the slides of a folder, or the one slide that `path` is.

    Parameters
    ----------
    path : Path
        A file, or a folder, which is searched without its subfolders. A subfolder of DICOM files
        counts as one slide per series.

    Returns
    -------
    list of Path
        By name. Only DICOM files are opened, to distinguish their series.

    Raises
    ------
    SlideError
        If there is no such path, or no slide in the folder.
    """
    path = existing_path(path)
    if not path.exists():
        raise SlideError(
            "there is no such slide or folder of slides; check the path", where=str(path)
        )
    if not path.is_dir():
        return [path]
    slides = [files[0] for files in dicom_slides(path).values()]
    for entry in sorted(path.iterdir()):
        suffix = entry.suffix.lower()
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            n_files = len(dicom_files(entry))
            # A slide beside other objects is named by its file.
            slides += [
                entry if len(files) == n_files else files[0]
                for files in dicom_slides(entry).values()
            ]
        elif suffix in SLIDE_SUFFIXES and suffix not in DICOM_SUFFIXES:
            slides.append(entry)
    if not slides:
        known = ", ".join(SLIDE_SUFFIXES)
        raise SlideError(f"the folder holds no slide ({known})", where=str(path))
    return sorted(slides)


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files directly in a folder, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in DICOM_SUFFIXES and path.is_file() and path.name[0] != "."
    )


def dicom_slides(folder: Path) -> dict[Path, list[Path]]:
    """Return the DICOM slides directly in a folder: the path to open each by, and its files.

    A series is one slide: the folder if it is the only one, else its first file. A file that cannot
    be read is by itself, so that opening it reports the error. Objects of other kinds beside
    slides, such as reports or a label in a series of its own, are left out.
    """
    found: dict[str, list[Path]] = {}
    may_be_slides: set[str] = set()
    for path in dicom_files(folder):
        series, is_slide = _series(path)
        found.setdefault(series, []).append(path)
        if is_slide is not False:
            may_be_slides.add(series)
    slides = [
        files for series, files in found.items() if series in may_be_slides or not may_be_slides
    ]
    return {folder if len(slides) == 1 else files[0]: files for files in slides}


def whole_slides(folder: Path) -> list[Path]:
    """Return the first file of each DICOM slide of a folder, or of what else it holds."""
    found = list(dicom_slides(folder).values())
    slides = [files[0] for files in found if slide_series(files) is not None]
    return slides or [files[0] for files in found[:1]]


def slide_series(files: Iterable[Path]) -> str | None:
    """Return the series of a DICOM slide; None if no file holds a whole slide image."""
    return next((series for series, is_slide in map(_series, files) if is_slide), None)


def dicom_reference(path: Path) -> DicomReference | None:
    """Return what identifies a DICOM slide in an archive; None where the file is not DICOM.

    Parameters
    ----------
    path : Path
        Any file of the slide, beside which the others of its series are searched, or their folder.

    Returns
    -------
    DicomReference or None
        Lists the levels of the slide itself, not its thumbnail, label or overview.
    """
    if path.is_dir():
        path = next(iter(whole_slides(path)), path)
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


def _header(path: Path) -> "pydicom.Dataset | None":
    """Return the identifying tags of a file; None where it is not DICOM or lacks them."""
    found = read_header(path, TAGS)
    return (
        found if found is not None and all(tag in found for tag in TAGS[:N_REQUIRED_TAGS]) else None
    )


def _series(path: Path) -> tuple[str, bool | None]:
    """Return the series of a file, and whether it holds a whole slide image.

    Of a file that cannot be read its path, and None.
    """
    try:
        return _read_series(path, *size_and_mtime(path))
    except ValueError:
        return str(path), None


@cache  # a folder is looked at again and again, whatever its size
def _read_series(path: Path, n_bytes: int, changed: int) -> tuple[str, bool]:  # noqa: ARG001 - the key
    """Return the series; raise `ValueError`, which is not remembered, if it cannot be read."""
    found = read_header(path, ["SOPClassUID", "SeriesInstanceUID", "ImageType"])
    is_slide = found is not None and str(found.get("SOPClassUID", SLIDE_CLASS)) == SLIDE_CLASS
    if found is None or (is_slide and "SeriesInstanceUID" not in found):  # it may end early
        raise ValueError
    is_whole = "VOLUME" in (found.get("ImageType") or ())
    return str(found.get("SeriesInstanceUID") or path), is_slide and is_whole
