"""Reference pictures of labels that a study supplies, for the definitions in the viewer.

They lie in one folder, as in ``references`` beside the images of a labelling study, each named
after the id of its label.
"""

from collections.abc import Collection
from pathlib import Path

from glomerulab.errors import ImageFileError
from glomerulab.reports.case.pictures import UriOf, data_uri

__all__ = ["find_references", "read_references"]

SUFFIXES = (".png", ".jpg", ".jpeg")
SHOWN_PX = 480
"""Longer side of a picture in a page, which holds all of them."""


def find_references(folder: Path, label_ids: Collection[str]) -> dict[str, Path]:
    """Return the pictures of labels in a folder, by label id; none if there is no such folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        path.stem: path
        for path in files
        if path.stem in label_ids and path.suffix.lower() in SUFFIXES
    }


def read_references(
    folder: Path, label_ids: Collection[str], uri_of: UriOf = data_uri
) -> dict[str, str]:
    """Return the addresses of the pictures in a folder, by label id.

    Parameters
    ----------
    folder : Path
        Holds PNG or JPEG files, each named after a label; those of other labels are left out.
    label_ids : collection of str
        Labels that the pages define.
    uri_of : callable, optional
        By default each picture as data, at most 480 pixels on a side.

    Raises
    ------
    ImageFileError
        If the folder is missing or holds no picture of these labels, or one cannot be read.
    """
    if not folder.is_dir():
        raise ImageFileError("the folder of reference pictures does not exist", where=str(folder))
    found = find_references(folder, label_ids)
    if not found:
        known = ", ".join(f"{one}.png" for one in label_ids)
        raise ImageFileError(
            f"the folder holds no reference picture of a label; name PNG or JPEG files {known}",
            where=str(folder),
        )
    return {label_id: uri_of(path, SHOWN_PX) for label_id, path in found.items()}
