"""The study itself: its settings, its taxonomy and its images.

Images are added in batches and never changed or removed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, RowMapping, func, insert, select

from glomerulab.apps.annotation.records import Image, NewImage, Study, StudySettings
from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.database import PART_ROWS, Store, batched
from glomerulab.apps.annotation.store.ledger import (
    append_event,
    canonical_json,
    images_digest,
    latest_event,
)
from glomerulab.apps.annotation.store.schema import event, image
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import AnnotationError, UnknownRecordError
from glomerulab.geometry import Box
from glomerulab.taxonomy import Label, Taxonomy

STUDY = "study"
IMAGES = "images"
LATEST_STUDY = (
    select(event.c.payload, event.c.version)
    .where(event.c.kind == STUDY, event.c.subject == STUDY)
    .order_by(event.c.version.desc())
    .limit(1)
)
MANIFEST_COLUMNS = ("image_id", "image_path", "patient_id", "slide_id", "stain", "mpp")
BOX_COLUMNS = ("x", "y", "width", "height")


def has_study(store: Store) -> bool:
    """Return whether the database holds a study yet."""
    with store.reading() as connection:
        return latest_event(connection, STUDY, STUDY) is not None


def create_study(store: Store, manifest: Manifest, *, owner: str, settings: StudySettings) -> Study:
    """Create the study of a database with the images of a manifest.

    Parameters
    ----------
    manifest : Manifest
        Its taxonomy becomes that of the study. Its labels are not imported; `import_labels` does.
    owner : str
        Login of an owner.

    Raises
    ------
    AnnotationError
        If the database holds a study already.
    """
    with store.writing() as connection:
        actor = require_owner(connection, owner)
        if latest_event(connection, STUDY, STUDY) is not None:
            raise AnnotationError(
                "this database holds a study already; give another file", where=store.location
            )
        study = Study(settings, manifest.taxonomy, manifest.folder.absolute(), version=1)
        _record_study(connection, study, actor=actor.login)
        insert_images(connection, images_from_manifest(manifest), actor=actor.login)
    return study


def read_study(store: Store) -> Study:
    """Return the study with its present settings."""
    with store.reading() as connection:
        return get_study(connection)


def change_settings(store: Store, settings: StudySettings, *, by: str) -> Study:
    """Change the settings from now on; what was distributed and saved stays as it is."""
    with store.writing() as connection:
        actor = require_owner(connection, by)
        current = get_study(connection)
        if settings == current.settings:
            return current
        changed = Study(settings, current.taxonomy, current.image_root, current.version + 1)
        _record_study(connection, changed, actor=actor.login)
    return changed


def get_study(connection: Connection) -> Study:
    """Return the study inside a transaction."""
    row = connection.execute(LATEST_STUDY).first()
    if row is None:
        raise UnknownRecordError(
            "the database holds no study yet; create one with `glomerulab annotate create`"
        )
    return _parse_study(row.payload, row.version)


def add_images(store: Store, images: Sequence[NewImage], *, by: str) -> int:
    """Add images to a study and return how many are new; `distribute` then assigns readers.

    Parameters
    ----------
    images : sequence of NewImage
        Those that the study has already are skipped. Many are checked as a whole, and added in
        parts; if the program is killed in between, the same call adds the rest.
    by : str
        Login of an owner.

    Raises
    ------
    AnnotationError
        If an id is given twice, or the study has it with another path.
    """
    with store.reading() as connection:
        actor = require_owner(connection, by)
        new = _select_new(connection, images)
    n_new = 0

    def write(connection: Connection, part: Sequence[NewImage]) -> None:
        nonlocal n_new
        n_new += insert_images(connection, part, actor=actor.login)

    store.write_in_parts(new, write, size=PART_ROWS)
    return n_new


def insert_images(connection: Connection, images: Sequence[NewImage], *, actor: str) -> int:
    """Add images inside a transaction; see `add_images`."""
    new = _select_new(connection, images)
    if not new:
        return 0
    first = (connection.scalar(select(func.max(image.c.position))) or 0) + 1
    rows = [_image_row(one, position) for position, one in enumerate(new, start=first)]
    entry = append_event(
        connection,
        kind=IMAGES,
        subject=IMAGES,
        actor=actor,
        payload={"n_images": len(rows), "sha256": images_digest(rows)},
    )
    connection.execute(insert(image), [{**row, "batch": entry.sequence} for row in rows])
    return len(rows)


def get_image(connection: Connection, image_id: str, image_root: Path) -> Image:
    """Return an image inside a transaction."""
    row = connection.execute(select(image).where(image.c.image_id == image_id)).mappings().first()
    if row is None:
        raise UnknownRecordError(f"the study has no image {image_id!r}")
    return image_from_row(row, image_root)


def image_from_row(row: RowMapping, image_root: Path) -> Image:
    """Build an `Image` from a row of its table."""
    box = None if row["x"] is None else Box(*(row[name] for name in BOX_COLUMNS))
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


def images_from_manifest(manifest: Manifest, *, root: Path | None = None) -> list[NewImage]:
    """Return the images of a manifest without their labels.

    `root` is the folder that the paths become relative to, by default the manifest's own.
    """
    table = manifest.table.drop(columns=list(manifest.taxonomy.label_ids)).astype(object)
    if root is not None and root.absolute() != manifest.folder.absolute():
        start = root.absolute()
        table["image_path"] = [
            Path(os.path.relpath(path, start)).as_posix() for path in manifest.image_paths()
        ]
    return [_new_image(record) for record in table.to_dict("records")]


def _record_study(connection: Connection, study: Study, *, actor: str) -> None:
    payload: dict[str, Any] = {
        "settings": asdict(study.settings),
        "taxonomy": {
            "name": study.taxonomy.name,
            "labels": [label.model_dump(mode="json") for label in study.taxonomy.labels],
        },
        "image_root": str(study.image_root),
    }
    append_event(
        connection,
        kind=STUDY,
        subject=STUDY,
        version=study.version,
        actor=actor,
        payload=payload,
    )


# Every request reads the study, which seldom changes. The cache is keyed by the payload, so that a
# change takes effect at once.
@lru_cache(maxsize=16)
def _parse_study(payload: str, version: int) -> Study:
    content = json.loads(payload)
    taxonomy = content["taxonomy"]
    labels = tuple(Label.model_validate(label) for label in taxonomy["labels"])
    return Study(
        settings=StudySettings(**content["settings"]),
        taxonomy=Taxonomy(taxonomy["name"], labels),
        image_root=Path(content["image_root"]),
        version=version,
    )


def _select_new(connection: Connection, images: Sequence[NewImage]) -> list[NewImage]:
    """Return the images that the study lacks."""
    known: dict[str, str] = {}
    for part in batched([one.image_id for one in images], PART_ROWS):
        query = select(image.c.image_id, image.c.image_path).where(image.c.image_id.in_(part))
        known |= dict(connection.execute(query).all())
    new: list[NewImage] = []
    given: set[str] = set()
    for one in images:
        if one.image_id in given:
            raise AnnotationError(f"the image id {one.image_id!r} is given twice; ids must differ")
        given.add(one.image_id)
        if one.image_id not in known:
            new.append(one)
        elif known[one.image_id] != one.image_path:
            raise AnnotationError(
                f"the study has another image with the id {one.image_id!r}, "
                f"{known[one.image_id]}; ids must differ"
            )
    return new


def _new_image(record: Mapping[Any, Any]) -> NewImage:
    given: dict[str, Any] = {
        str(name): _json_value(value) for name, value in record.items() if not pd.isna(value)
    }
    known = {name: given.pop(name) for name in MANIFEST_COLUMNS if name in given}
    box = None
    if all(name in given for name in BOX_COLUMNS):
        box = Box(*(given.pop(name) for name in BOX_COLUMNS))
    return NewImage(**known, box=box, others=given)


def _json_value(value: object) -> str | int | float:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float) else str(value)


def _image_row(one: NewImage, position: int) -> dict[str, Any]:
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
