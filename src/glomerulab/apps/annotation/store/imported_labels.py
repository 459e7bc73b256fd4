"""Labels that someone gave before the study, taken over as their readings."""

from dataclasses import dataclass
from uuid import uuid4

from sqlalchemy import Connection, select

from glomerulab.apps.annotation.assignment import Reading
from glomerulab.apps.annotation.records import Account, Judgement
from glomerulab.apps.annotation.store.accounts import account_of, require_owner
from glomerulab.apps.annotation.store.annotations import save_in
from glomerulab.apps.annotation.store.assignments import insert_readings
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.schema import assignment, image
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import AnnotationError

__all__ = ["ImportSummary", "import_labels"]


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import of labels did."""

    n_imported: int
    n_read_already: int
    """Images that the annotator has read in the study: theirs stays as it is."""
    n_without_labels: int
    """Images of which the manifest says nothing."""
    not_in_study: tuple[str, ...]
    """Ids of the images that the study does not have."""


def import_labels(store: Store, manifest: Manifest, *, login: str, by: str) -> ImportSummary:
    """Take the labels of a manifest over as the readings of one annotator, all or none.

    Parameters
    ----------
    store : Store
    manifest : Manifest
        An empty cell stays unknown.
    login : str
        Whose labels they are.
    by : str
        Login of an owner.

    Returns
    -------
    ImportSummary

    Raises
    ------
    AnnotationError
        If labels of an image exclude each other; the message names it.
    """
    summary: dict[str, int] = {"n_imported": 0, "n_read_already": 0, "n_without_labels": 0}
    absent: list[str] = []
    with store.writing() as connection:
        actor, reader = require_owner(connection, by), account_of(connection, login)
        known = set(connection.scalars(select(image.c.image_id)))
        wanted: dict[str, dict[str, int | None]] = {}
        for image_id, labels in _labels(manifest).items():
            if image_id not in known:
                absent.append(image_id)
            elif all(value is None for value in labels.values()):
                summary["n_without_labels"] += 1
            else:
                wanted[image_id] = labels
        items = _items(connection, reader)
        queue = [Reading(image_id, "first") for image_id in wanted if image_id not in items]
        insert_readings(connection, {reader.login: queue}, actor=actor.login)
        items = _items(connection, reader)
        for image_id, labels in wanted.items():
            assignment_id, version = items[image_id]
            if version:
                summary["n_read_already"] += 1
            else:
                _save(connection, reader, assignment_id, labels, image_id)
                summary["n_imported"] += 1
    return ImportSummary(**summary, not_in_study=tuple(absent))


def _labels(manifest: Manifest) -> dict[str, dict[str, int | None]]:
    known = manifest.table[list(manifest.taxonomy.label_ids)].astype(object)
    rows = known.where(known.notna(), None).to_dict("records")
    return {
        str(image_id): {str(k): None if v is None else int(v) for k, v in row.items()}
        for image_id, row in zip(manifest.table["image_id"], rows, strict=True)
    }


def _items(connection: Connection, reader: Account) -> dict[str, tuple[int, int]]:
    """Return id and version of the reader's first readings, by image id."""
    rows = connection.execute(
        select(assignment.c.image_id, assignment.c.assignment_id, assignment.c.version).where(
            assignment.c.account_id == reader.account_id, assignment.c.purpose == "first"
        )
    )
    return {image_id: (assignment_id, version) for image_id, assignment_id, version in rows}


def _save(
    connection: Connection,
    reader: Account,
    assignment_id: int,
    labels: dict[str, int | None],
    image_id: str,
) -> None:
    """Save one row, and name its image if it is refused."""
    try:
        save_in(
            connection,
            reader,
            assignment_id,
            Judgement(labels),
            expected_version=0,
            save_key=str(uuid4()),
            seconds=0.0,
            source="import",
        )
    except AnnotationError as error:
        raise AnnotationError(error.message, where=image_id) from error
