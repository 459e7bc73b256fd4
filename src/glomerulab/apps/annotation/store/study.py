"""The study itself: its settings, its labels, and what its images are relative to."""

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from glomerulab.apps.annotation.records import Study, StudySettings
from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import images_of_manifest, insert_images
from glomerulab.apps.annotation.store.ledger import append, newest_event
from glomerulab.apps.annotation.store.schema import event
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import AnnotationError, UnknownRecordError
from glomerulab.taxonomy import Label, Taxonomy

__all__ = ["change_settings", "has_study", "new_study", "read_study", "study_of"]

SUBJECT = "study"
NEWEST = (
    select(event.c.payload, event.c.version)
    .where(event.c.kind == SUBJECT, event.c.subject == SUBJECT)
    .order_by(event.c.version.desc())
    .limit(1)
)


def has_study(store: Store) -> bool:
    """Tell whether the database holds a study yet."""
    with store.reading() as connection:
        return newest_event(connection, SUBJECT, SUBJECT) is not None


def new_study(store: Store, manifest: Manifest, *, owner: str, settings: StudySettings) -> Study:
    """Begin the study of a database with the images of a manifest.

    Parameters
    ----------
    store : Store
    manifest : Manifest
        Its labels are what can be said of an image; what it says of its images is not taken over
        (`import_labels` does that).
    owner : str
        Login of an owner.
    settings : StudySettings

    Returns
    -------
    Study

    Raises
    ------
    AnnotationError
        If the database has a study already; one database holds one study.
    """
    with store.writing() as connection:
        actor = require_owner(connection, owner)
        if newest_event(connection, SUBJECT, SUBJECT) is not None:
            raise AnnotationError("holds a study already; take another file", where=store.place)
        study = Study(settings, manifest.taxonomy, manifest.folder.absolute(), version=1)
        _record(connection, study, actor=actor.login)
        insert_images(connection, images_of_manifest(manifest), actor=actor.login)
    return study


def read_study(store: Store) -> Study:
    """Return the study as it stands.

    Parameters
    ----------
    store : Store

    Returns
    -------
    Study

    Raises
    ------
    UnknownRecordError
        If the database holds none yet.
    """
    with store.reading() as connection:
        return study_of(connection)


def change_settings(store: Store, settings: StudySettings, *, by: str) -> Study:
    """Change how the study is run from now on; what was distributed and saved stays.

    Parameters
    ----------
    store : Store
    settings : StudySettings
    by : str
        Login of an owner.

    Returns
    -------
    Study
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        now = study_of(connection)
        if settings == now.settings:
            return now
        changed = Study(settings, now.taxonomy, now.image_root, now.version + 1)
        _record(connection, changed, actor=actor.login)
    return changed


def study_of(connection: Connection) -> Study:
    """Return the study inside a transaction; see `read_study`."""
    row = connection.execute(NEWEST).first()
    if row is None:
        raise UnknownRecordError(
            "the database holds no study yet; `glomerulab annotate create` begins one"
        )
    return _study(row.payload, row.version)


def _record(connection: Connection, study: Study, *, actor: str) -> None:
    payload: dict[str, Any] = {
        "settings": asdict(study.settings),
        "taxonomy": {
            "name": study.taxonomy.name,
            "labels": [label.model_dump(mode="json") for label in study.taxonomy.labels],
        },
        "image_root": str(study.image_root),
    }
    append(
        connection,
        kind=SUBJECT,
        subject=SUBJECT,
        version=study.version,
        actor=actor,
        payload=payload,
    )


# Every request asks for the study, and it seldom changes: what is remembered is how its text reads,
# so that a change is seen at once.
@lru_cache(maxsize=16)
def _study(payload: str, version: int) -> Study:
    said = json.loads(payload)
    taxonomy = said["taxonomy"]
    labels = tuple(Label.model_validate(label) for label in taxonomy["labels"])
    return Study(
        settings=StudySettings(**said["settings"]),
        taxonomy=Taxonomy(taxonomy["name"], labels),
        image_root=Path(said["image_root"]),
        version=version,
    )
