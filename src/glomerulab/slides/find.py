"""Which slides a path stands for: one file, or those of a folder."""

from pathlib import Path

from glomerulab.errors import SlideError
from glomerulab.slides.dicom import DICOM_SUFFIXES, dicom_files, one_file_per_series

__all__ = ["SLIDE_SUFFIXES", "find_slides"]

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
"""Suffixes a folder is searched for; a slide named by itself may be called anything."""


def find_slides(path: Path) -> list[Path]:
    """Return the slides of a folder, or the one slide that is named.

    Parameters
    ----------
    path : Path
        A file, or a folder, which is searched without its subfolders; a subfolder of DICOM files
        counts as a slide per series.

    Returns
    -------
    list of Path
        By name; nothing is opened except DICOM files, to tell their series apart.

    Raises
    ------
    SlideError
        If there is no such path, or no slide in the folder.
    """
    if not path.exists():
        raise SlideError("there is no such file or folder", where=str(path))
    if not path.is_dir():
        return [path]
    slides: list[Path] = one_file_per_series(dicom_files(path))
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            slides += _of_dicom_folder(entry)
        elif entry.suffix.lower() in SLIDE_SUFFIXES and entry.suffix.lower() not in DICOM_SUFFIXES:
            slides.append(entry)
    if not slides:
        raise SlideError(f"no slide in this folder ({', '.join(SLIDE_SUFFIXES)})", where=str(path))
    return sorted(slides)


def _of_dicom_folder(folder: Path) -> list[Path]:
    """Name a folder with one series by itself, and of several series one file each."""
    files = one_file_per_series(dicom_files(folder))
    return [folder] if len(files) == 1 else files
