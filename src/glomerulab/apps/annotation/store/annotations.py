"""Queues, and the judgements that people save of their items.

Nothing here shows an annotator what another, or the model, said of an image, unless the settings
of the study say so.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select, update

from glomerulab.apps.annotation.label_validation import checked_judgement, checked_seconds
from glomerulab.apps.annotation.records import (
    Account,
    Annotation,
    Image,
    ItemState,
    Judgement,
    QueueItem,
    SaveConflictError,
    Saved,
    Source,
    Study,
)
from glomerulab.apps.annotation.store.accounts import account_of
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import find_image
from glomerulab.apps.annotation.store.ledger import Event, append, event_of, find_save, newest_event
from glomerulab.apps.annotation.store.schema import assignment, event, model_call
from glomerulab.apps.annotation.store.study import study_of
from glomerulab.errors import NotAllowedError, UnknownRecordError

__all__ = [
    "annotation_of",
    "find_item",
    "history",
    "image_of_item",
    "item_at",
    "list_items",
    "next_item",
    "save_annotation",
    "save_in",
]

KIND = "annotation"


def next_item(store: Store, login: str) -> QueueItem | None:
    """Return the first item that the annotator has neither labelled nor skipped.

    Parameters
    ----------
    store : Store
    login : str

    Returns
    -------
    QueueItem or None
        None when all is done.
    """
    with store.reading() as connection:
        reader = account_of(connection, login)
        row = (
            connection.execute(_items_of(reader).where(assignment.c.state == "open").limit(1))
            .mappings()
            .first()
        )
        return None if row is None else _item(connection, reader, row)


def item_at(store: Store, login: str, place: int) -> QueueItem:
    """Return the item at a place of the annotator's queue, saved or not.

    Parameters
    ----------
    store : Store
    login : str
    place : int
        From 1 to `QueueItem.n_items`.

    Returns
    -------
    QueueItem

    Raises
    ------
    UnknownRecordError
        If the queue has no such place.
    """
    with store.reading() as connection:
        reader = account_of(connection, login)
        row = (
            connection.execute(_items_of(reader).where(assignment.c.position == place))
            .mappings()
            .first()
        )
        if row is None:
            raise UnknownRecordError(f"the queue has no place {place}", where=login)
        return _item(connection, reader, row)


def find_item(store: Store, login: str, assignment_id: int) -> QueueItem:
    """Return an item of the annotator's queue.

    Parameters
    ----------
    store : Store
    login : str
    assignment_id : int

    Returns
    -------
    QueueItem

    Raises
    ------
    UnknownRecordError
        If there is no such item.
    NotAllowedError
        If it is another annotator's.
    """
    with store.reading() as connection:
        reader = account_of(connection, login)
        return _item(connection, reader, _own_row(connection, reader, assignment_id))


def image_of_item(store: Store, login: str, assignment_id: int) -> Image:
    """Return the image of an item of the annotator's queue; see `find_item`, which reads more."""
    with store.reading() as connection:
        row = _own_row(connection, account_of(connection, login), assignment_id)
        return find_image(connection, row["image_id"], study_of(connection).image_root)


def list_items(store: Store, login: str) -> list[ItemState]:
    """Return the annotator's queue, in order."""
    with store.reading() as connection:
        rows = connection.execute(_items_of(account_of(connection, login))).mappings()
        return [
            ItemState(row["assignment_id"], row["position"], row["image_id"], row["state"])
            for row in rows
        ]


def history(store: Store, login: str, assignment_id: int) -> list[Annotation]:
    """Return every version of the annotator's judgement of an item, oldest first."""
    with store.reading() as connection:
        reader = account_of(connection, login)
        row = _own_row(connection, reader, assignment_id)
        versions = connection.execute(
            select(event)
            .where(event.c.kind == KIND, event.c.subject == str(row["assignment_id"]))
            .order_by(event.c.version)
        ).mappings()
        return [annotation_of(event_of(version)) for version in versions]


def save_annotation(
    store: Store,
    *,
    login: str,
    assignment_id: int,
    judgement: Judgement,
    expected_version: int,
    save_key: str,
    seconds: float,
    image_sha256: str | None = None,
) -> Saved:
    """Save a judgement of an item: durable when this returns, and never stored twice.

    Parameters
    ----------
    store : Store
    login : str
    assignment_id : int
    judgement : Judgement
    expected_version : int
        `QueueItem.version` as the annotator saw it.
    save_key : str
        Made by the client for this save, 8 to 64 characters. If a save with this key is there
        already, that one is returned and nothing is stored.
    seconds : float
        Time spent.
    image_sha256 : str, optional
        Digest of the file that was shown.

    Returns
    -------
    Saved

    Raises
    ------
    SaveConflictError
        If the item was saved since, as from another tab; its `current` is what stands there.
    AnnotationError
        If the judgement is refused, or the key was used for another save.
    NotAllowedError
        If the item is another annotator's.
    """
    with store.writing() as connection:
        return save_in(
            connection,
            account_of(connection, login),
            assignment_id,
            judgement,
            expected_version=expected_version,
            save_key=save_key,
            seconds=seconds,
            image_sha256=image_sha256,
        )


def save_in(
    connection: Connection,
    reader: Account,
    assignment_id: int,
    judgement: Judgement,
    *,
    expected_version: int,
    save_key: str,
    seconds: float,
    image_sha256: str | None = None,
    source: Source = "web",
) -> Saved:
    """Save a judgement in a transaction of `Store.writing`; see `save_annotation`."""
    study = study_of(connection)
    row = _own_row(connection, reader, assignment_id)
    checked = checked_judgement(judgement, study.taxonomy)
    said = {
        "labels": dict(checked.labels),
        "unsure": checked.unsure,
        "skip_reason": checked.skip_reason,
        "note": checked.note,
    }
    before = find_save(connection, save_key, kind=KIND, subject=str(assignment_id), said=said)
    if before is not None:
        return Saved(annotation_of(before), was_there=True)
    if row["version"] != expected_version:
        current = newest_event(connection, KIND, str(assignment_id))
        raise SaveConflictError(
            f"this image was saved since you opened it (version {row['version']}, you had "
            f"{expected_version}); look at what stands there, then save again",
            where=row["image_id"],
            current=None if current is None else annotation_of(current),
        )
    entry = append(
        connection,
        kind=KIND,
        subject=str(assignment_id),
        version=expected_version + 1,
        actor=reader.login,
        save_key=save_key,
        payload={
            **said,
            "image_id": row["image_id"],
            "purpose": row["purpose"],
            "seconds": checked_seconds(seconds),
            "image_sha256": image_sha256,
            "model_shown": study.settings.show_model,
            "others_shown": study.settings.show_others,
            "source": source,
        },
    )
    state = "done" if checked.skip_reason is None else "skipped"
    connection.execute(
        update(assignment)
        .where(assignment.c.assignment_id == assignment_id)
        .values(version=entry.version, state=state)
    )
    return Saved(annotation_of(entry), was_there=False)


def annotation_of(entry: Event) -> Annotation:
    """Make an `Annotation` of its entry in the ledger."""
    said = entry.payload
    return Annotation(
        sequence=entry.sequence,
        assignment_id=int(entry.subject),
        image_id=said["image_id"],
        login=entry.actor,
        purpose=said["purpose"],
        version=entry.version,
        judgement=Judgement(said["labels"], said["unsure"], said["skip_reason"], said["note"]),
        seconds=said["seconds"],
        saved_at=entry.at,
        image_sha256=said["image_sha256"],
        model_shown=said["model_shown"],
        others_shown=said["others_shown"],
        source=said["source"],
    )


def _items_of(reader: Account) -> Select[Any]:
    return (
        select(assignment)
        .where(assignment.c.account_id == reader.account_id)
        .order_by(assignment.c.position)
    )


def _own_row(connection: Connection, reader: Account, assignment_id: int) -> RowMapping:
    """Return an item of the reader's queue."""
    row = (
        connection.execute(select(assignment).where(assignment.c.assignment_id == assignment_id))
        .mappings()
        .first()
    )
    if row is None:
        raise UnknownRecordError("there is no such item", where=str(assignment_id))
    if row["account_id"] != reader.account_id:
        raise NotAllowedError("this item is in another annotator's queue", where=reader.login)
    return row


def _item(connection: Connection, reader: Account, row: RowMapping) -> QueueItem:
    study = study_of(connection)
    own = newest_event(connection, KIND, str(row["assignment_id"])) if row["version"] else None
    n_items = connection.scalar(
        select(func.count()).where(assignment.c.account_id == reader.account_id)
    )
    return QueueItem(
        assignment_id=row["assignment_id"],
        image=find_image(connection, row["image_id"], study.image_root),
        place=row["position"],
        n_items=n_items or 0,
        version=row["version"],
        annotation=None if own is None else annotation_of(own),
        model=_model(connection, study, row["image_id"]),
        others=_others(connection, study, reader, row["image_id"]),
    )


def _model(connection: Connection, study: Study, image_id: str) -> Mapping[str, float] | None:
    if not study.settings.show_model:
        return None
    rows = connection.execute(
        select(model_call.c.label_id, model_call.c.probability).where(
            model_call.c.image_id == image_id
        )
    )
    return dict(rows.all()) or None


def _others(
    connection: Connection, study: Study, reader: Account, image_id: str
) -> tuple[Annotation, ...]:
    if not study.settings.show_others:
        return ()
    theirs = select(assignment.c.assignment_id).where(
        assignment.c.image_id == image_id,
        assignment.c.account_id != reader.account_id,
        assignment.c.version > 0,
    )
    newest = [newest_event(connection, KIND, str(one)) for one in connection.scalars(theirs)]
    return tuple(annotation_of(entry) for entry in newest if entry is not None)
