"""What is to be explained: images of a manifest, a folder or a file, and the masks beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ImageFileError, ManifestError
from glomerulab.images import read_image
from glomerulab.taxonomy import Taxonomy

__all__ = ["Subject", "find_subjects", "read_mask"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True, slots=True)
class Subject:
    """One image, and what is known of it."""

    image_id: str
    path: Path
    patient_id: str | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    """1 or 0 for each label that is known."""
    masks: Mapping[str, Path] = field(default_factory=dict)
    """Where each lesion is, by label."""


def find_subjects(
    images: Path, taxonomy: Taxonomy, *, masks: Path | None = None, split: str | None = None
) -> list[Subject]:
    """Find images and their masks.

    Parameters
    ----------
    images : Path
        A manifest, a folder of images, or an image.
    taxonomy : Taxonomy
        Of the model.
    masks : Path, optional
        Folder of ``<image_id>.<label>.png``, as `glomerulab phantom` writes them; by default
        ``masks`` beside the manifest or the folder, if there is one.
    split : str, optional
        Of a manifest, only this part.

    Returns
    -------
    list of Subject

    Raises
    ------
    ManifestError
        If a manifest is malformed, or has no image of that part.
    ImageFileError
        If there is no image, or no folder of masks where one was named.
    """
    if masks is not None and not masks.is_dir():
        raise ImageFileError("no such folder of masks", where=str(masks))
    if images.suffix.lower() in {".csv", ".parquet"}:
        return _of_manifest(images, taxonomy, masks or images.parent / "masks", split)
    if images.is_dir():
        paths = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise ImageFileError("no image in this folder", where=str(images))
        beside = masks or images.parent / "masks"
    else:
        paths, beside = [images], masks or images.parent / "masks"
    return [Subject(path.stem, path, masks=_masks(beside, path.stem, taxonomy)) for path in paths]


def read_mask(path: Path, size: int) -> npt.NDArray[np.bool_]:
    """Read where a lesion is, at the size the model sees.

    Parameters
    ----------
    path : Path
        An image as large as, or of the same aspect as, the crop; the lesion is not black.
    size : int
        Height and width of the mask that is returned, px.

    Returns
    -------
    ndarray of bool, shape (size, size)
        True where at least half of the pixel is lesion; a lesion smaller than that is kept
        wherever it touches.

    Raises
    ------
    ImageFileError
        If it cannot be read, or no pixel is lesion.
    """
    lesion = read_image(path).max(axis=2) > 0
    if not lesion.any():
        raise ImageFileError("the mask is empty: no pixel is lesion", where=str(path))
    grey = Image.fromarray(lesion.astype(np.uint8) * 255)
    shares = np.asarray(grey.resize((size, size), Image.Resampling.BOX))
    half = shares >= 128
    return np.asarray(half if half.any() else shares > 0, dtype=np.bool_)


def _of_manifest(path: Path, taxonomy: Taxonomy, masks: Path, split: str | None) -> list[Subject]:
    manifest = read_manifest(path)
    table, paths = manifest.table, manifest.image_paths()
    known = [name for name in taxonomy.label_ids if name in manifest.taxonomy.label_ids]
    subjects = []
    for row, image in zip(table.to_dict("records"), paths, strict=True):
        if split is not None and (pd.isna(row["split"]) or row["split"] != split):
            continue
        image_id = str(row["image_id"])
        subjects.append(
            Subject(
                image_id,
                image,
                None if pd.isna(row["patient_id"]) else str(row["patient_id"]),
                {name: int(row[name]) for name in known if not pd.isna(row[name])},
                _masks(masks, image_id, taxonomy),
            )
        )
    if not subjects:
        where = "" if split is None else f" of split {split!r}"
        raise ManifestError(f"no image{where} to explain", where=str(path))
    return subjects


def _masks(folder: Path, image_id: str, taxonomy: Taxonomy) -> dict[str, Path]:
    found = {name: folder / f"{image_id}.{name}.png" for name in taxonomy.label_ids}
    return {name: path for name, path in found.items() if path.is_file()}
