"""Every judgement of a study at once, for those who may see them all: the owners."""

from collections import defaultdict

from sqlalchemy import Connection, select

from glomerulab.apps.annotation.records import Annotation
from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.annotations import KIND, annotation_of
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import event_of
from glomerulab.apps.annotation.store.schema import event

__all__ = ["list_annotations", "newest_annotations", "readings_by_image"]


def list_annotations(store: Store, *, by: str, every_version: bool = False) -> list[Annotation]:
    """Return the judgements of all annotators.

    Parameters
    ----------
    store : Store
    by : str
        Login of an owner.
    every_version : bool, default False
        Also those that were changed later.

    Returns
    -------
    list of Annotation
        In the order they were saved.
    """
    with store.reading() as connection:
        require_owner(connection, by)
        return _all_versions(connection) if every_version else newest_annotations(connection)


def newest_annotations(connection: Connection) -> list[Annotation]:
    """Return the newest judgement of every item, in the order they were saved."""
    newest = {one.assignment_id: one for one in _all_versions(connection)}
    return sorted(newest.values(), key=lambda one: one.sequence)


def readings_by_image(connection: Connection) -> dict[str, tuple[Annotation, ...]]:
    """Return the newest judgements of each image, without skips and repeats, by image id."""
    readings: dict[str, list[Annotation]] = defaultdict(list)
    for one in newest_annotations(connection):
        if one.purpose != "repeat" and one.judgement.skip_reason is None:
            readings[one.image_id].append(one)
    return {image_id: tuple(found) for image_id, found in readings.items()}


def _all_versions(connection: Connection) -> list[Annotation]:
    rows = connection.execute(
        select(event).where(event.c.kind == KIND).order_by(event.c.sequence)
    ).mappings()
    return [annotation_of(event_of(row)) for row in rows]
