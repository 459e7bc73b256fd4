"""The record of a study: everything anyone did, in order, each entry sealed with the one before.

The hash of an entry covers all its columns and the hash of the entry before it. Whoever changes,
removes or reorders an entry breaks the chain from there on; whoever removes the last ones, or
computes the whole chain anew, is found out by the head that an export wrote down earlier.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from glomerulab.apps.annotation.store.schema import event, ledger_head
from glomerulab.errors import AnnotationError

__all__ = [
    "Event",
    "append",
    "canonical_json",
    "entry_hash",
    "event_of",
    "find_save",
    "newest_event",
]

FIRST_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the record."""

    sequence: int
    """From 1, without gaps."""
    at: datetime
    """UTC."""
    actor: str
    """Login of who did it."""
    kind: str
    """``study``, ``account``, ``images``, ``model``, ``assignments``, ``annotation``, ``region`` or
    ``adjudication``."""
    subject: str
    """What it is about: an item, an image, a region, a login."""
    version: int
    """Counts the entries of one kind about one subject, from 1."""
    save_key: str | None
    payload: Mapping[str, Any]
    previous_hash: str
    hash: str


def append(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    version: int,
    actor: str,
    payload: Mapping[str, Any],
    save_key: str | None = None,
) -> Event:
    """Add an entry in a transaction of `Store.writing`.

    Parameters
    ----------
    connection : Connection
    kind, subject : str
    version : int
        One more than the newest of this kind and subject.
    actor : str
        Login.
    payload : mapping
        Anything JSON holds.
    save_key : str, optional
        Unique in the study; what a client that saves twice is recognised by.

    Returns
    -------
    Event
    """
    sequence, previous_hash = connection.execute(
        select(ledger_head.c.sequence, ledger_head.c.hash)
    ).one()
    row = {
        "sequence": sequence + 1,
        "at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "actor": actor,
        "kind": kind,
        "subject": subject,
        "version": version,
        "save_key": save_key,
        "payload": canonical_json(payload),
        "previous_hash": previous_hash,
    }
    row["hash"] = entry_hash(row)
    connection.execute(insert(event).values(**row))
    connection.execute(update(ledger_head).values(sequence=row["sequence"], hash=row["hash"]))
    return event_of(row)


def newest_event(connection: Connection, kind: str, subject: str) -> Event | None:
    """Return the newest entry of a kind about a subject, None if there is none."""
    rows = connection.execute(
        select(event)
        .where(event.c.kind == kind, event.c.subject == subject)
        .order_by(event.c.version.desc())
        .limit(1)
    )
    row = rows.mappings().first()
    return None if row is None else event_of(row)


def find_save(
    connection: Connection, save_key: str, *, kind: str, subject: str, said: Mapping[str, Any]
) -> Event | None:
    """Return the entry that this very save made before, None if it is new.

    Parameters
    ----------
    connection : Connection
    save_key : str
        8 to 64 characters.
    kind, subject : str
        What is saved.
    said : mapping
        The part of the payload that the person chose.

    Returns
    -------
    Event or None

    Raises
    ------
    AnnotationError
        If the key is malformed, or belongs to a save of something else.
    """
    if not 8 <= len(save_key) <= 64 or not save_key.isprintable():
        raise AnnotationError(f"a save key has 8 to 64 characters, got {save_key!r}")
    rows = connection.execute(select(event).where(event.c.save_key == save_key))
    row = rows.mappings().first()
    if row is None:
        return None
    found = event_of(row)
    same = all(found.payload.get(name) == value for name, value in said.items())
    if (found.kind, found.subject) != (kind, subject) or not same:
        raise AnnotationError(
            f"the save key {save_key!r} was used for another save; a new save needs a new key"
        )
    return found


def event_of(row: RowMapping | Mapping[str, Any]) -> Event:
    """Make an `Event` of a row of its table."""
    return Event(
        sequence=row["sequence"],
        at=datetime.fromisoformat(row["at"]),
        actor=row["actor"],
        kind=row["kind"],
        subject=row["subject"],
        version=row["version"],
        save_key=row["save_key"],
        payload=json.loads(row["payload"]),
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def entry_hash(row: RowMapping | Mapping[str, Any]) -> str:
    """Return the SHA-256 of an entry, which covers every column but itself."""
    names = (
        "sequence",
        "at",
        "actor",
        "kind",
        "subject",
        "version",
        "save_key",
        "payload",
        "previous_hash",
    )
    text = canonical_json([row[name] for name in names])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
