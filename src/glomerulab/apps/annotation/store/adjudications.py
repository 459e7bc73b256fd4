"""Where readers differ, and what was settled: by majority, a third reader, or consensus.

A settled image keeps its readings; settling it again is a new version beside the old one.
"""

import json
from collections.abc import Mapping, Sequence
from uuid import uuid4

from sqlalchemy import Connection, select

from glomerulab.apps.annotation.consensus import differing_labels, majority_labels
from glomerulab.apps.annotation.label_validation import checked_labels, checked_text
from glomerulab.apps.annotation.records import (
    Account,
    Adjudication,
    AdjudicationMethod,
    AdjudicationSummary,
    Annotation,
    Disagreement,
    Labels,
    Outcome,
    SaveConflictError,
)
from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import find_image, image_from
from glomerulab.apps.annotation.store.ledger import Event, append, event_of, find_save, newest_event
from glomerulab.apps.annotation.store.readings import readings_by_image
from glomerulab.apps.annotation.store.schema import event, image
from glomerulab.apps.annotation.store.study import study_of
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "adjudicate",
    "adjudicate_all",
    "adjudication_history",
    "find_outcome",
    "list_disagreements",
    "list_outcomes",
]

KIND = "adjudication"


def list_outcomes(store: Store, *, by: str) -> list[Outcome]:
    """Return every image with its readings and what was settled.

    Parameters
    ----------
    store : Store
    by : str
        Login of an owner.

    Returns
    -------
    list of Outcome
        In the order the images were added.
    """
    with store.reading() as connection:
        require_owner(connection, by)
        return _outcomes(connection)


def find_outcome(store: Store, image_id: str, *, by: str) -> Outcome:
    """Return one image with its readings and what was settled.

    Parameters
    ----------
    store : Store
    image_id : str
    by : str
        Login of an owner.

    Returns
    -------
    Outcome
    """
    with store.reading() as connection:
        require_owner(connection, by)
        find_image(connection, image_id, study_of(connection).image_root)
        return _outcomes(connection, [image_id])[0]


def list_disagreements(
    store: Store, *, by: str, include_settled: bool = False
) -> list[Disagreement]:
    """Return the images on which readers differ and nothing is settled, and those settled stale.

    Parameters
    ----------
    store : Store
    by : str
        Login of an owner.
    include_settled : bool, default False
        Also those that are settled.

    Returns
    -------
    list of Disagreement
        In the order the images were added.
    """
    with store.reading() as connection:
        require_owner(connection, by)
        taxonomy = study_of(connection).taxonomy
        found = _disagreements(_outcomes(connection), taxonomy)
    return [one for one in found if include_settled or one.adjudication is None or one.stale]


def adjudicate(
    store: Store,
    image_id: str,
    labels: Labels,
    *,
    by: str,
    expected_version: int,
    save_key: str,
    note: str = "",
) -> Adjudication:
    """Settle an image by consensus: durable when this returns, and never stored twice.

    Parameters
    ----------
    store : Store
    image_id : str
    labels : mapping of str to int or None
        What those who met agreed on.
    by : str
        Login of an owner.
    expected_version : int
        Version of the adjudication that was seen, 0 if there was none.
    save_key : str
        As in `save_annotation`.
    note : str, default ""

    Returns
    -------
    Adjudication

    Raises
    ------
    SaveConflictError
        If the image was settled since; its `current` is what stands there.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        study = study_of(connection)
        find_image(connection, image_id, study.image_root)
        said = {
            "labels": checked_labels(labels, study.taxonomy),
            "method": "consensus",
            "note": checked_text(note),
        }
        before = find_save(connection, save_key, kind=KIND, subject=image_id, said=said)
        if before is not None:
            return _adjudication(before)
        current = newest_event(connection, KIND, image_id)
        version = 0 if current is None else current.version
        if version != expected_version:
            raise SaveConflictError(
                f"this image was settled since you opened it (version {version}, you had "
                f"{expected_version}); look at what stands there, then settle it again",
                where=image_id,
                current=None if current is None else _adjudication(current),
            )
        readings = readings_by_image(connection).get(image_id, ())
        return _append(
            connection,
            actor,
            image_id,
            version=version,
            readings=readings,
            said=said,
            save_key=save_key,
        )


def adjudicate_all(store: Store, method: AdjudicationMethod, *, by: str) -> AdjudicationSummary:
    """Settle every open disagreement that a rule can settle.

    Parameters
    ----------
    store : Store
    method : {"majority", "third_reader"}
        ``majority``: what more than half of the readers say of each label (`majority_labels`).
        ``third_reader``: what the third reader says, where one has read.
    by : str
        Login of an owner.

    Returns
    -------
    AdjudicationSummary

    Raises
    ------
    ValueError
        If the method is another.
    """
    if method not in {"majority", "third_reader"}:
        raise ValueError(f"method must be majority or third_reader, got {method!r}")
    n_settled, left = 0, []
    with store.writing() as connection:
        actor = require_owner(connection, by)
        taxonomy = study_of(connection).taxonomy
        for one in _disagreements(_outcomes(connection), taxonomy):
            if one.adjudication is not None and not one.stale:
                continue
            labels = _by_rule(method, one.readings, taxonomy)
            if labels is None:
                left.append(one.image.image_id)
                continue
            version = 0 if one.adjudication is None else one.adjudication.version
            said = {"labels": dict(labels), "method": method, "note": ""}
            image_id = one.image.image_id
            _append(
                connection,
                actor,
                image_id,
                version=version,
                readings=one.readings,
                said=said,
                save_key=str(uuid4()),
            )
            n_settled += 1
    return AdjudicationSummary(n_settled, tuple(left))


def adjudication_history(store: Store, image_id: str, *, by: str) -> list[Adjudication]:
    """Return every adjudication of an image, oldest first.

    Parameters
    ----------
    store : Store
    image_id : str
    by : str
        Login of an owner.

    Returns
    -------
    list of Adjudication
    """
    with store.reading() as connection:
        require_owner(connection, by)
        rows = connection.execute(
            select(event)
            .where(event.c.kind == KIND, event.c.subject == image_id)
            .order_by(event.c.version)
        ).mappings()
        return [_adjudication(event_of(row)) for row in rows]


def _outcomes(connection: Connection, only: Sequence[str] | None = None) -> list[Outcome]:
    root = study_of(connection).image_root
    readings = readings_by_image(connection)
    entries = connection.execute(
        select(event).where(event.c.kind == KIND).order_by(event.c.sequence)
    ).mappings()
    settled = {row["subject"]: _adjudication(event_of(row)) for row in entries}
    images = select(image).order_by(image.c.position)
    if only is not None:
        images = images.where(image.c.image_id.in_(only))
    return [
        Outcome(
            image=image_from(row, root),
            image_path=row["image_path"],
            others=json.loads(row["others"]),
            readings=readings.get(row["image_id"], ()),
            adjudication=settled.get(row["image_id"]),
        )
        for row in connection.execute(images).mappings()
    ]


def _disagreements(outcomes: Sequence[Outcome], taxonomy: Taxonomy) -> list[Disagreement]:
    found = []
    for one in outcomes:
        labels = differing_labels([r.judgement.labels for r in one.readings], taxonomy)
        # What was settled on readings that are no longer those there are is settled again.
        if labels or one.stale:
            found.append(Disagreement(one.image, one.readings, labels, one.adjudication, one.stale))
    return found


def _by_rule(
    method: AdjudicationMethod, readings: Sequence[Annotation], taxonomy: Taxonomy
) -> Labels | None:
    if method == "majority":
        return majority_labels([reading.judgement.labels for reading in readings], taxonomy)
    third = [reading for reading in readings if reading.purpose == "third"]
    return third[-1].judgement.labels if third else None


def _append(
    connection: Connection,
    actor: Account,
    image_id: str,
    *,
    version: int,
    readings: Sequence[Annotation],
    said: Mapping[str, object],
    save_key: str,
) -> Adjudication:
    entry = append(
        connection,
        kind=KIND,
        subject=image_id,
        version=version + 1,
        actor=actor.login,
        save_key=save_key,
        payload={**said, "readings": [reading.sequence for reading in readings]},
    )
    return _adjudication(entry)


def _adjudication(entry: Event) -> Adjudication:
    said = entry.payload
    return Adjudication(
        sequence=entry.sequence,
        image_id=entry.subject,
        version=entry.version,
        labels=said["labels"],
        method=said["method"],
        login=entry.actor,
        note=said["note"],
        readings=tuple(said["readings"]),
        saved_at=entry.at,
    )
