"""Import a cohort from a folder with one subfolder per class."""

from pathlib import Path

import pandas as pd

from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import ManifestError, TaxonomyError
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["import_folder"]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Compared in lower case."""


def import_folder(root: Path, taxonomy: Taxonomy) -> Manifest:
    """Build a manifest from a folder with one subfolder per class.

    Parameters
    ----------
    root : Path
        Holds folders named after labels (id, English or Chinese name), images at any depth below.
    taxonomy : Taxonomy
        The label of the folder is 1, all others are 0.

    Returns
    -------
    Manifest
        In the order of the paths. `image_id` is the path below `root` without suffix; patients
        are not known.

    Raises
    ------
    ManifestError
        If there is no image, an image is outside the class folders, or two images would have the
        same id.
    TaxonomyError
        If a folder has the name of no label.
    """
    if not root.is_dir():
        raise ManifestError(
            "this is not a folder; give one with a subfolder per class", where=str(root)
        )
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
    )
    if not paths:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ManifestError(f"the folder holds no image ({known})", where=str(root))
    _check_unique_ids(paths)
    rows = [_row(path.relative_to(root), root, taxonomy) for path in paths]
    return manifest_from_rows(pd.DataFrame(rows), folder=root, taxonomy=taxonomy)


def _check_unique_ids(paths: list[Path]) -> None:
    """Refuse ``a.png`` beside ``a.jpg``, which would have the same id."""
    first: dict[Path, Path] = {}
    for path in paths:
        other = first.setdefault(path.with_suffix(""), path)
        if other != path:
            raise ManifestError(
                f"the image would have the same id as {other.name} beside it; rename one, or "
                "remove it if it is the same picture",
                where=str(path),
            )


def _row(path: Path, root: Path, taxonomy: Taxonomy) -> dict[str, str | int]:
    if len(path.parts) < 2:
        raise ManifestError(
            "the image is outside the class folders; move it into one", where=str(root / path)
        )
    label = _label(root / path.parts[0], taxonomy)
    flags = {label_id: int(label_id == label.id) for label_id in taxonomy.label_ids}
    return {"image_id": path.with_suffix("").as_posix(), "image_path": path.as_posix()} | flags


def _label(folder: Path, taxonomy: Taxonomy) -> Label:
    """Return the label with the name of a folder."""
    try:
        return taxonomy.find(folder.name)
    except TaxonomyError as error:
        raise TaxonomyError(
            f"{error.message} (taxonomy {taxonomy.name!r}; choose another with --taxonomy)",
            where=str(folder),
        ) from error
