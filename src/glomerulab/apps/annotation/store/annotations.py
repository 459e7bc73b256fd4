"""Queues of annotators, the annotations they save, and their progress.

An annotator sees what others or the model labelled only if the settings of the study say so.
"""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, RowMapping, Select, String, bindparam, cast, func, select, update

from glomerulab.apps.annotation.label_validation import validate_content, validate_seconds
from glomerulab.apps.annotation.records import (
    Account,
    Annotation,
    AnnotationContent,
    AnnotatorProgress,
    Image,
    ItemState,
    QueueItem,
    SaveConflictError,
    SaveResult,
    Source,
    Study,
)
from glomerulab.apps.annotation.store.accounts import get_account, require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import (
    Event,
    NewEntry,
    append_event,
    append_events,
    event_from_row,
    find_save,
    latest_event,
    model_batch,
)
from glomerulab.apps.annotation.store.schema import account, assignment, event, model_call
from glomerulab.apps.annotation.store.study import get_image, get_study
from glomerulab.errors import NotAllowedError, UnknownRecordError

KIND = "annotation"


def item_at(store: Store, login: str, position: int) -> QueueItem:
    """Return the item at a position of the annotator's queue, from 1, saved or not."""
    with store.reading() as connection:
        reader = get_account(connection, login)
        query = _queue(reader).where(assignment.c.position == position)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise UnknownRecordError(f"the queue of {login} has no item {position}")
        return _item(connection, reader, row)


def image_of_item(store: Store, login: str, assignment_id: int) -> Image:
    """Return the image of an item of the annotator's queue."""
    with store.reading() as connection:
        row = _own_row(connection, get_account(connection, login), assignment_id)
        return get_image(connection, row["image_id"], get_study(connection).image_root)


def list_items(store: Store, login: str) -> list[ItemState]:
    """Return the annotator's queue, in order."""
    with store.reading() as connection:
        rows = connection.execute(_queue(get_account(connection, login))).mappings()
        return [
            ItemState(row["assignment_id"], row["position"], row["image_id"], row["state"])
            for row in rows
        ]


def own_annotations(store: Store, login: str) -> dict[int, Annotation]:
    """Return the annotator's latest annotations by assignment id."""
    with store.reading() as connection:
        reader = get_account(connection, login)
        return {one.assignment_id: one for one in _annotations(connection, actor=reader.login)}


def save_annotation(
    store: Store,
    *,
    login: str,
    assignment_id: int,
    content: AnnotationContent,
    expected_version: int,
    save_key: str,
    seconds: float,
    image_sha256: str | None = None,
) -> SaveResult:
    """Save the annotation of an item, durably and only once."""
    with store.writing() as connection:
        return _save(
            connection,
            get_account(connection, login),
            assignment_id,
            content,
            expected_version=expected_version,
            save_key=save_key,
            seconds=seconds,
            image_sha256=image_sha256,
        )


def _save(
    connection: Connection,
    reader: Account,
    assignment_id: int,
    content: AnnotationContent,
    *,
    expected_version: int,
    save_key: str,
    seconds: float,
    image_sha256: str | None,
) -> SaveResult:
    study = get_study(connection)
    row = _own_row(connection, reader, assignment_id)
    valid = validate_content(content, study.taxonomy)
    entered = _entered(valid)
    subject = str(assignment_id)
    saved = find_save(connection, save_key, kind=KIND, subject=subject, content=entered)
    if saved is not None:
        return SaveResult(annotation_from_event(saved), already_saved=True)
    if row["version"] != expected_version:
        current = latest_event(connection, KIND, subject)
        raise SaveConflictError(
            f"this image was saved since you opened it (version {row['version']}, you had "
            f"{expected_version}); look at the saved annotation, then save again",
            current=None if current is None else annotation_from_event(current),
        )
    entry = append_event(
        connection,
        kind=KIND,
        subject=subject,
        version=expected_version + 1,
        actor=reader.login,
        save_key=save_key,
        payload={
            **entered,
            **_circumstances(study, row, seconds=seconds, image_sha256=image_sha256),
        },
    )
    _set_states(connection, [(assignment_id, entry.version, valid)])
    return SaveResult(annotation_from_event(entry), already_saved=False)


def save_first_readings(
    connection: Connection, reader: Account, contents: Mapping[str, AnnotationContent]
) -> int:
    """Save imported annotations of those images that the reader has not read; return how many.

    Inside a transaction; `contents` are valid, by image id.
    """
    study = get_study(connection)
    rows = connection.execute(
        select(assignment).where(
            assignment.c.account_id == reader.account_id,
            assignment.c.purpose == "first",
            assignment.c.version == 0,
            assignment.c.image_id.in_(contents),
        )
    ).mappings()
    unread = {row["image_id"]: row for row in rows}
    saved = [(unread[name], contents[name]) for name in contents if name in unread]
    entries = [
        NewEntry(
            subject=str(row["assignment_id"]),
            version=1,
            payload={**_entered(content), **_circumstances(study, row, source="import")},
            save_key=str(uuid4()),
        )
        for row, content in saved
    ]
    append_events(connection, entries, kind=KIND, actor=reader.login)
    _set_states(connection, [(row["assignment_id"], 1, content) for row, content in saved])
    return len(saved)


def list_annotations(store: Store, *, by: str, every_version: bool = False) -> list[Annotation]:
    """Return the annotations of all annotators to an owner, in the order they were saved.

    Only the latest of each item unless `every_version`.
    """
    with store.reading() as connection:
        require_owner(connection, by)
        return _annotations(connection) if every_version else _latest_annotations(connection)


def latest_by_image(
    connection: Connection, image_id: str | None = None
) -> dict[str, tuple[Annotation, ...]]:
    """Return the latest annotations of each image or of one, skips included, without repeats."""
    latest: dict[str, list[Annotation]] = defaultdict(list)
    for one in _latest_annotations(connection, image_id):
        if one.purpose != "repeat":
            latest[one.image_id].append(one)
    return {image_id: tuple(found) for image_id, found in latest.items()}


def without_skips(annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """Return the annotations that label their image."""
    return tuple(one for one in annotations if one.content.skip_reason is None)


def study_progress(store: Store, *, by: str) -> list[AnnotatorProgress]:
    """Return the progress of every account with a queue to an owner, ordered by login."""
    with store.reading() as connection:
        require_owner(connection, by)
        logins = connection.scalars(
            select(account.c.login).join(assignment).distinct().order_by(account.c.login)
        ).all()
        return [_progress(connection, get_account(connection, login)) for login in logins]


def annotation_from_event(entry: Event) -> Annotation:
    """Build an `Annotation` from its entry in the ledger."""
    payload = entry.payload
    return Annotation(
        sequence=entry.sequence,
        assignment_id=int(entry.subject),
        image_id=payload["image_id"],
        login=entry.actor,
        purpose=payload["purpose"],
        version=entry.version,
        content=AnnotationContent(
            payload["labels"], payload["unsure"], payload["skip_reason"], payload["note"]
        ),
        seconds=payload["seconds"],
        saved_at=entry.at,
        image_sha256=payload["image_sha256"],
        model_shown=payload["model_shown"],
        others_shown=payload["others_shown"],
        source=payload["source"],
    )


def _annotations(
    connection: Connection, *, actor: str | None = None, image_id: str | None = None
) -> list[Annotation]:
    """Return every version of the annotations of everyone, of one annotator, or of one image."""
    query = select(event).where(event.c.kind == KIND).order_by(event.c.sequence)
    if actor is not None:
        query = query.where(event.c.actor == actor)
    if image_id is not None:
        items = select(cast(assignment.c.assignment_id, String)).where(
            assignment.c.image_id == image_id
        )
        query = query.where(event.c.subject.in_(items))
    rows = connection.execute(query).mappings()
    return [annotation_from_event(event_from_row(row)) for row in rows]


def _latest_annotations(connection: Connection, image_id: str | None = None) -> list[Annotation]:
    latest = {one.assignment_id: one for one in _annotations(connection, image_id=image_id)}
    return sorted(latest.values(), key=lambda one: one.sequence)


def _progress(connection: Connection, reader: Account) -> AnnotatorProgress:
    counts: dict[str, int] = dict(
        connection.execute(
            select(assignment.c.state, func.count())
            .where(assignment.c.account_id == reader.account_id)
            .group_by(assignment.c.state)
        ).all()
    )
    saves = _annotations(connection, actor=reader.login)
    seconds: dict[int, float] = defaultdict(float)
    latest: dict[int, Annotation] = {}
    for save in saves:
        seconds[save.assignment_id] += save.seconds
        latest[save.assignment_id] = save
    return AnnotatorProgress(
        login=reader.login,
        name=reader.name,
        n_assigned=sum(counts.values()),
        n_done=counts.get("done", 0),
        n_skipped=counts.get("skipped", 0),
        n_unsure=sum(save.content.unsure for save in latest.values()),
        seconds_total=sum(seconds.values()),
        seconds_median=statistics.median(seconds.values()) if seconds else None,
        last_saved_at=saves[-1].saved_at if saves else None,
    )


def _queue(reader: Account) -> Select[Any]:
    return (
        select(assignment)
        .where(assignment.c.account_id == reader.account_id)
        .order_by(assignment.c.position)
    )


def _entered(valid: AnnotationContent) -> dict[str, Any]:
    return {
        "labels": dict(valid.labels),
        "unsure": valid.unsure,
        "skip_reason": valid.skip_reason,
        "note": valid.note,
    }


def _circumstances(
    study: Study,
    row: RowMapping,
    *,
    seconds: float = 0.0,
    image_sha256: str | None = None,
    source: Source = "web",
) -> dict[str, Any]:
    """Return what an entry records beside what was entered."""
    return {
        "image_id": row["image_id"],
        "purpose": row["purpose"],
        "seconds": validate_seconds(seconds),
        "image_sha256": image_sha256,
        "model_shown": study.settings.show_model,
        "others_shown": study.settings.show_others,
        "source": source,
    }


def _set_states(
    connection: Connection, saved: Sequence[tuple[int, int, AnnotationContent]]
) -> None:
    """Record ids, versions and contents of items after their annotations were appended."""
    if not saved:
        return
    values = [
        {
            "item": assignment_id,
            "new_version": version,
            "new_state": "done" if content.skip_reason is None else "skipped",
        }
        for assignment_id, version, content in saved
    ]
    query = update(assignment).where(assignment.c.assignment_id == bindparam("item"))
    connection.execute(
        query.values(version=bindparam("new_version"), state=bindparam("new_state")), values
    )


def _own_row(connection: Connection, reader: Account, assignment_id: int) -> RowMapping:
    """Return an assignment of the reader."""
    query = select(assignment).where(assignment.c.assignment_id == assignment_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise UnknownRecordError(f"there is no item {assignment_id}")
    if row["account_id"] != reader.account_id:
        raise NotAllowedError(f"item {assignment_id} is in another annotator's queue")
    return row


def _item(connection: Connection, reader: Account, row: RowMapping) -> QueueItem:
    study = get_study(connection)
    own = latest_event(connection, KIND, str(row["assignment_id"])) if row["version"] else None
    n_items = connection.scalar(
        select(func.count()).where(assignment.c.account_id == reader.account_id)
    )
    return QueueItem(
        assignment_id=row["assignment_id"],
        image=get_image(connection, row["image_id"], study.image_root),
        position=row["position"],
        n_items=n_items or 0,
        version=row["version"],
        annotation=None if own is None else annotation_from_event(own),
        model=_model_calls(connection, study, row["image_id"]),
        others=_others(connection, study, reader, row["image_id"]),
    )


def _model_calls(connection: Connection, study: Study, image_id: str) -> Mapping[str, float] | None:
    if not study.settings.show_model:
        return None
    rows = connection.execute(
        select(model_call.c.label_id, model_call.c.probability).where(
            model_call.c.image_id == image_id, model_call.c.batch == model_batch(connection)
        )
    )
    return dict(rows.all()) or None


def _others(
    connection: Connection, study: Study, reader: Account, image_id: str
) -> tuple[Annotation, ...]:
    if not study.settings.show_others:
        return ()
    assignments = select(assignment.c.assignment_id).where(
        assignment.c.image_id == image_id,
        assignment.c.account_id != reader.account_id,
        assignment.c.version > 0,
    )
    latest = [latest_event(connection, KIND, str(one)) for one in connection.scalars(assignments)]
    return tuple(annotation_from_event(entry) for entry in latest if entry is not None)
