"""Giving images to annotators, as the design of the study says."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, or_, select

from glomerulab.apps.annotation.assignment import Reading, choose_readers, order_readings
from glomerulab.apps.annotation.records import Distribution
from glomerulab.apps.annotation.store.accounts import account_of, require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import find_image
from glomerulab.apps.annotation.store.ledger import append, canonical_json, newest_event
from glomerulab.apps.annotation.store.schema import account, assignment, image
from glomerulab.apps.annotation.store.study import study_of
from glomerulab.errors import AnnotationError

__all__ = ["assign_third_reader", "assignments_digest", "distribute", "insert_readings"]

SUBJECT = "assignments"
DIGESTED = ("account_id", "image_id", "purpose", "position")
"""Columns that the ledger vouches for; the others follow from the annotations."""


def distribute(store: Store, *, by: str) -> Distribution:
    """Give every image that lacks readers its annotators, at the end of their queues.

    Call it after annotators or images were added; what was given before stays.

    Parameters
    ----------
    store : Store
    by : str
        Login of an owner.

    Returns
    -------
    Distribution

    Raises
    ------
    AnnotationError
        If there are fewer active annotators than an image needs.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        settings = study_of(connection).settings
        logins = _annotators(connection)
        readers = _readers(connection)
        n_missing = {
            image_id: settings.n_readers - len(readers.get(image_id, ()))
            for image_id in connection.scalars(select(image.c.image_id))
        }
        n_missing = {image_id: n for image_id, n in n_missing.items() if n > 0}
        loads = {login: sum(1 for those in readers.values() if login in those) for login in logins}
        dealt = choose_readers(n_missing, loads, readers=readers, seed=settings.seed)
        batch = _next_version(connection)
        queues = {
            login: order_readings(
                image_ids,
                repeat_share=settings.repeat_share,
                seed=settings.seed,
                login=login,
                batch=batch,
            )
            for login, image_ids in dealt.items()
        }
        n_assignments = insert_readings(connection, queues, actor=actor.login)
    n_repeats = sum(reading.purpose == "repeat" for queue in queues.values() for reading in queue)
    return Distribution(len(n_missing), n_assignments, n_repeats)


def assign_third_reader(store: Store, image_ids: Sequence[str], *, login: str, by: str) -> int:
    """Give images to one more annotator, whose reading settles them.

    Parameters
    ----------
    store : Store
    image_ids : sequence of str
    login : str
        Of an annotator who has not read them; to them they look like any other.
    by : str
        Login of an owner.

    Returns
    -------
    int
        How many were given; those that this annotator has as third reader already are left out.

    Raises
    ------
    AnnotationError
        If the annotator is one of the readers of an image.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        reader = account_of(connection, login)
        root = study_of(connection).image_root
        readers = _readers(connection)
        mine = select(assignment.c.image_id).where(
            assignment.c.account_id == reader.account_id, assignment.c.purpose == "third"
        )
        given = set(connection.scalars(mine))
        queue: list[Reading] = []
        for image_id in dict.fromkeys(image_ids):
            find_image(connection, image_id, root)
            if image_id in given:
                continue
            if reader.login in readers.get(image_id, frozenset()):
                raise AnnotationError(
                    f"{reader.login} has read this image; a third reader must be someone else",
                    where=image_id,
                )
            queue.append(Reading(image_id, "third"))
        return insert_readings(connection, {reader.login: queue}, actor=actor.login)


def insert_readings(
    connection: Connection, queues: Mapping[str, Sequence[Reading]], *, actor: str
) -> int:
    """Append readings to queues, by login, in a transaction of `Store.writing`.

    Parameters
    ----------
    connection : Connection
    queues : mapping of str to sequence of Reading
    actor : str
        Login.

    Returns
    -------
    int
        How many there were.
    """
    rows: list[dict[str, Any]] = []
    for login, queue in queues.items():
        account_id = account_of(connection, login).account_id
        last = connection.scalar(
            select(func.max(assignment.c.position)).where(assignment.c.account_id == account_id)
        )
        rows += [
            {
                "account_id": account_id,
                "image_id": reading.image_id,
                "purpose": reading.purpose,
                "position": position,
                "state": "open",
                "version": 0,
            }
            for position, reading in enumerate(queue, start=(last or 0) + 1)
        ]
    if not rows:
        return 0
    entry = append(
        connection,
        kind=SUBJECT,
        subject=SUBJECT,
        version=_next_version(connection),
        actor=actor,
        payload={"n_assignments": len(rows), "sha256": assignments_digest(rows)},
    )
    connection.execute(insert(assignment), [{**row, "batch": entry.sequence} for row in rows])
    return len(rows)


def assignments_digest(rows: Iterable[RowMapping | Mapping[str, Any]]) -> str:
    """Return the SHA-256 of rows of the table, whatever their order."""
    lines = sorted(canonical_json([row[name] for name in DIGESTED]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def _annotators(connection: Connection) -> list[str]:
    chosen = select(account.c.login).where(account.c.role == "annotator", account.c.active)
    return list(connection.scalars(chosen.order_by(account.c.login)))


def _readers(connection: Connection) -> dict[str, frozenset[str]]:
    """Return who has read each image or will, by image id."""
    rows = connection.execute(
        select(assignment.c.image_id, account.c.login)
        .join(account)
        .where(
            assignment.c.purpose != "repeat",
            # What someone who left has not read, nobody will unless it is given to another.
            or_(account.c.active, assignment.c.version > 0),
        )
    )
    readers: dict[str, set[str]] = defaultdict(set)
    for image_id, login in rows:
        readers[image_id].add(login)
    return {image_id: frozenset(logins) for image_id, logins in readers.items()}


def _next_version(connection: Connection) -> int:
    before = newest_event(connection, SUBJECT, SUBJECT)
    return 1 if before is None else before.version + 1
