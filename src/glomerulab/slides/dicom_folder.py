"""DICOM slides are several files: which of a folder's files make one slide."""

from pathlib import Path

from glomerulab.errors import SlideError
from glomerulab.slides.openslide_source import OpenSlideSource, detect_vendor

__all__ = ["DICOM_SUFFIXES", "dicom_files", "one_file_per_series"]

DICOM_SUFFIXES = (".dcm", ".dicom")
SERIES_PROPERTY = "dicom.SeriesInstanceUID"


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
