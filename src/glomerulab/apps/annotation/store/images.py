"""The images of a study: added in batches, never changed or taken away."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, RowMapping, func, insert, select

from glomerulab.apps.annotation.records import Image
from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import append, canonical_json, newest_event
from glomerulab.apps.annotation.store.schema import image
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import AnnotationError, UnknownRecordError
from glomerulab.geometry import Box

__all__ = [
    "NewImage",
    "add_images",
    "find_image",
    "image_from",
    "images_digest",
    "images_of_manifest",
    "insert_images",
    "list_other_columns",
]

SUBJECT = "images"
NAMED = ("image_id", "image_path", "patient_id", "slide_id", "stain", "mpp")
PLACES = ("x", "y", "width", "height")
DIGESTED = (
    "image_id",
    "position",
    "image_path",
    "patient_id",
    "slide_id",
    "stain",
    "mpp",
    "x",
    "y",
    "width",
    "height",
    "region_id",
    "others",
)
"""Columns that the ledger vouches for."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to add to a study."""

    image_id: str
    image_path: str
    """Relative to the image root of the study, or absolute."""
    patient_id: str | None = None
    slide_id: str | None = None
    stain: str | None = None
    mpp: float | None = None
    box: Box | None = None
    region_id: str | None = None
    others: Mapping[str, str | int | float] = field(default_factory=dict)
    """Other columns of its manifest, which an export gives back."""


def add_images(store: Store, images: Sequence[NewImage], *, by: str) -> int:
    """Add images to a study; `distribute` then gives them readers.

    Parameters
    ----------
    store : Store
    images : sequence of NewImage
        Those that the study has already are left as they are.
    by : str
        Login of an owner.

    Returns
    -------
    int
        How many were new.

    Raises
    ------
    AnnotationError
        If an id is given twice, or stands in the study with another path.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        return insert_images(connection, images, actor=actor.login)


def insert_images(connection: Connection, images: Sequence[NewImage], *, actor: str) -> int:
    """Add images in a transaction of `Store.writing`; see `add_images`."""
    fresh = _fresh(connection, images)
    if not fresh:
        return 0
    before = newest_event(connection, SUBJECT, SUBJECT)
    first = (connection.scalar(select(func.max(image.c.position))) or 0) + 1
    rows = [_row(one, position) for position, one in enumerate(fresh, start=first)]
    entry = append(
        connection,
        kind=SUBJECT,
        subject=SUBJECT,
        version=1 if before is None else before.version + 1,
        actor=actor,
        payload={"n_images": len(rows), "sha256": images_digest(rows)},
    )
    connection.execute(insert(image), [{**row, "batch": entry.sequence} for row in rows])
    return len(rows)


def images_digest(rows: Iterable[RowMapping | Mapping[str, Any]]) -> str:
    """Return the SHA-256 of rows of the table, in the order of their positions."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json([row[name] for name in DIGESTED]).encode("utf-8"))
    return digest.hexdigest()


def image_from(row: RowMapping, image_root: Path) -> Image:
    """Make an `Image` of a row of its table."""
    box = None
    if row["x"] is not None:
        box = Box(row["x"], row["y"], row["width"], row["height"])
    return Image(
        image_id=row["image_id"],
        image_path=image_root / row["image_path"],
        patient_id=row["patient_id"],
        slide_id=row["slide_id"],
        stain=row["stain"],
        mpp=row["mpp"],
        box=box,
        region_id=row["region_id"],
    )


def images_of_manifest(manifest: Manifest, *, root: Path | None = None) -> list[NewImage]:
    """Return the images of a manifest without their labels.

    Parameters
    ----------
    manifest : Manifest
    root : Path, optional
        What the paths are to be relative to; by default the manifest's own folder.

    Returns
    -------
    list of NewImage
    """
    table = manifest.table.drop(columns=list(manifest.taxonomy.label_ids)).astype(object)
    if root is not None and root.absolute() != manifest.folder.absolute():
        start = root.absolute()
        table["image_path"] = [
            Path(os.path.relpath(path, start)).as_posix() for path in manifest.image_paths()
        ]
    return [_new_image(record) for record in table.to_dict("records")]


def list_other_columns(connection: Connection) -> dict[str, dict[str, Any]]:
    """Return the other manifest columns of every image, by image id."""
    rows = connection.execute(select(image.c.image_id, image.c.others))
    return {image_id: json.loads(others) for image_id, others in rows}


def find_image(connection: Connection, image_id: str, image_root: Path) -> Image:
    """Return an image.

    Parameters
    ----------
    connection : Connection
    image_id : str
    image_root : Path

    Returns
    -------
    Image

    Raises
    ------
    UnknownRecordError
        If the study has no such image.
    """
    row = connection.execute(select(image).where(image.c.image_id == image_id)).mappings().first()
    if row is None:
        raise UnknownRecordError("there is no such image in the study", where=image_id)
    return image_from(row, image_root)


def _fresh(connection: Connection, images: Sequence[NewImage]) -> list[NewImage]:
    """Return the images that the study lacks, and refuse two of one name."""
    paths = connection.execute(select(image.c.image_id, image.c.image_path))
    known: dict[str, str] = dict(paths.all())
    fresh: list[NewImage] = []
    given: set[str] = set()
    for one in images:
        if one.image_id in given:
            raise AnnotationError("this image is given twice", where=one.image_id)
        given.add(one.image_id)
        if one.image_id not in known:
            fresh.append(one)
        elif known[one.image_id] != one.image_path:
            raise AnnotationError(
                f"the study has another image of this name, {known[one.image_id]}; ids must differ",
                where=one.image_id,
            )
    return fresh


def _new_image(record: Mapping[Any, Any]) -> NewImage:
    given: dict[str, Any] = {
        str(name): _plain(value) for name, value in record.items() if not pd.isna(value)
    }
    known = {name: given.pop(name) for name in NAMED if name in given}
    box = None
    if all(name in given for name in PLACES):
        box = Box(*(given.pop(name) for name in PLACES))
    return NewImage(**known, box=box, others=given)


def _plain(value: object) -> str | int | float:
    """Return a cell of a table as what JSON holds."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else str(value)


def _row(one: NewImage, position: int) -> dict[str, Any]:
    box = one.box
    return {
        "image_id": one.image_id,
        "position": position,
        "image_path": one.image_path,
        "patient_id": one.patient_id,
        "slide_id": one.slide_id,
        "stain": one.stain,
        "mpp": one.mpp,
        "x": None if box is None else box.x,
        "y": None if box is None else box.y,
        "width": None if box is None else box.width,
        "height": None if box is None else box.height,
        "region_id": one.region_id,
        "others": canonical_json(dict(one.others)),
    }
