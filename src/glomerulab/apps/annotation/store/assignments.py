"""Assign images to annotators at random, balanced, and reproducibly for a seed."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, insert, or_, select

from glomerulab.apps.annotation.records import Account, Distribution, Purpose
from glomerulab.apps.annotation.store.accounts import get_account, require_owner
from glomerulab.apps.annotation.store.database import PART_ROWS, Store
from glomerulab.apps.annotation.store.ledger import (
    ASSIGNMENT_COLUMNS,
    append_event,
    latest_event,
    unordered_digest,
)
from glomerulab.apps.annotation.store.schema import account, assignment, image
from glomerulab.apps.annotation.store.study import get_image, get_study
from glomerulab.errors import AnnotationError

KIND = "assignments"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One image in the queue of one annotator."""

    image_id: str
    purpose: Purpose


def choose_readers(
    n_missing: Mapping[str, int],
    loads: Mapping[str, int],
    *,
    readers: Mapping[str, frozenset[str]],
    seed: int,
) -> dict[str, list[str]]:
    """Choose as many new readers for each image as it lacks, those with the fewest images first.

    Notes
    -----
    Images are assigned in random order, each to those with the fewest images so far, ties broken at
    random. The loads of two annotators who may read every image never differ by more than one.
    """
    rng = np.random.default_rng(_entropy(seed, "readers"))
    images = sorted(n_missing)
    current = dict(loads)
    assigned: dict[str, list[str]] = {login: [] for login in sorted(loads)}
    for index in rng.permutation(len(images)):
        image_id = images[index]
        present = readers.get(image_id, frozenset())
        available = sorted(set(current) - present)
        if len(available) < n_missing[image_id]:
            raise AnnotationError(
                f"image {image_id!r} needs {n_missing[image_id] + len(present)} annotators, there "
                f"are {len(available) + len(present)}; add annotators or ask for fewer readers per "
                "image"
            )
        ties = dict(zip(available, rng.random(len(available)), strict=True))
        available.sort(key=lambda login: (current[login], ties[login]))
        for login in available[: n_missing[image_id]]:
            assigned[login].append(image_id)
            current[login] += 1
    return assigned


def order_queue(
    image_ids: Sequence[str], *, repeat_share: float, seed: int, login: str, batch: int
) -> list[Assignment]:
    """Return the n images of one annotator in random order, some of them twice."""
    rng = np.random.default_rng(_entropy(seed, f"order {login} {batch}"))
    images = sorted(image_ids)
    order = [images[index] for index in rng.permutation(len(images))]
    n_repeats = int(np.floor(repeat_share * len(order) + 0.5))
    # The first of a random order are a random sample; they come back among the last of it.
    n_last = (len(order) - n_repeats) // 2
    first = [Assignment(image_id, "first") for image_id in order]
    repeats = [Assignment(image_id, "repeat") for image_id in order[:n_repeats]]
    mixed = first[len(first) - n_last :] + repeats
    shuffled = [mixed[index] for index in rng.permutation(len(mixed))]
    return first[: len(first) - n_last] + shuffled


def _entropy(seed: int, purpose: str) -> list[int]:
    """Return the entropy of an independent random stream for each purpose of one seed."""
    digest = hashlib.sha256(purpose.encode("utf-8")).digest()
    return [abs(seed), int(seed < 0), int.from_bytes(digest[:8], "big")]


def distribute(store: Store, *, by: str) -> Distribution:
    """Append every image that lacks readers to the queues of annotators.

    Existing assignments stay. Call it after annotators or images were added. Many are written in
    parts; if the program is killed in between, the next call hands out the rest.

    Raises
    ------
    AnnotationError
        If there are fewer active annotators than an image needs, or someone else hands out
        images at the same time.
    """
    with store.reading() as connection:
        actor = require_owner(connection, by)
        settings = get_study(connection).settings
        logins = _active_annotators(connection)
        readers = _readers_by_image(connection)
        n_missing = {
            image_id: settings.n_readers - len(readers.get(image_id, ()))
            for image_id in connection.scalars(select(image.c.image_id))
        }
        n_missing = {image_id: n for image_id, n in n_missing.items() if n > 0}
        loads = {login: sum(login in those for those in readers.values()) for login in logins}
        assigned = choose_readers(n_missing, loads, readers=readers, seed=settings.seed)
        batch = _next_batch(connection)
        queues = {
            login: order_queue(
                image_ids,
                repeat_share=settings.repeat_share,
                seed=settings.seed,
                login=login,
                batch=batch,
            )
            for login, image_ids in assigned.items()
        }
    n_assignments = add_to_queues(store, queues, actor=actor.login, next_batch=batch)
    n_repeats = sum(one.purpose == "repeat" for queue in queues.values() for one in queue)
    return Distribution(len(n_missing), n_assignments, n_repeats)


def assign_third_reader(store: Store, image_ids: Sequence[str], *, login: str, by: str) -> int:
    """Assign images to one more annotator, who decides where the readers disagree.

    Parameters
    ----------
    login : str
        An annotator who has not read the images; to them they look like any other.
    by : str
        Login of an owner.

    Returns
    -------
    int
        How many were assigned; those that this annotator has as third reader are skipped.

    Raises
    ------
    AnnotationError
        If the annotator is one of the readers of an image.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        reader = get_account(connection, login)
        readers = _readers_by_image(connection)
        thirds = _images_of(connection, reader, purpose="third")
        new = [one for one in dict.fromkeys(image_ids) if one not in thirds]
        for image_id in new:
            if reader.login in readers.get(image_id, frozenset()):
                raise AnnotationError(
                    f"{reader.login} is a reader of image {image_id!r}; choose someone else as "
                    "third reader"
                )
        return _append_to_queue(connection, reader, new, purpose="third", actor=actor)


def assign_further_reader(store: Store, image_ids: Sequence[str], *, login: str, by: str) -> int:
    """Assign images to a reader in place of those who skipped them; return how many.

    Parameters
    ----------
    login : str
        An annotator; images that are in the queue already are left out.
    by : str
        Login of an owner.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        reader = get_account(connection, login)
        present = _images_of(connection, reader)
        new = [one for one in dict.fromkeys(image_ids) if one not in present]
        return _append_to_queue(connection, reader, new, purpose="first", actor=actor)


def _images_of(
    connection: Connection, reader: Account, *, purpose: Purpose | None = None
) -> set[str]:
    """Return the ids of the images in a queue, or of those for one purpose."""
    query = select(assignment.c.image_id).where(assignment.c.account_id == reader.account_id)
    if purpose is not None:
        query = query.where(assignment.c.purpose == purpose)
    return set(connection.scalars(query))


def _append_to_queue(
    connection: Connection,
    reader: Account,
    image_ids: Sequence[str],
    *,
    purpose: Purpose,
    actor: Account,
) -> int:
    root = get_study(connection).image_root
    for image_id in image_ids:
        get_image(connection, image_id, root)  # raises if the study has no such image
    queue = [Assignment(image_id, purpose) for image_id in image_ids]
    return insert_assignments(connection, {reader.login: queue}, actor=actor.login)


def add_to_queues(
    store: Store,
    queues: Mapping[str, Sequence[Assignment]],
    *,
    actor: str,
    next_batch: int | None = None,
) -> int:
    """Append assignments to queues, by login, in parts; return how many.

    With `next_batch`, raise an error if someone else appends some at the same time.
    """
    n_new = 0

    def write(connection: Connection, part: Sequence[tuple[str, Assignment]]) -> None:
        nonlocal n_new, next_batch
        if next_batch is not None:
            if _next_batch(connection) != next_batch:
                raise AnnotationError(
                    "someone else hands out images at the same time; hand out the rest again"
                )
            next_batch += 1
        of_part: dict[str, list[Assignment]] = defaultdict(list)
        for login, one in part:
            of_part[login].append(one)
        n_new += insert_assignments(connection, of_part, actor=actor)

    items = [(login, one) for login, queue in queues.items() for one in queue]
    store.write_in_parts(items, write, size=PART_ROWS)
    return n_new


def _next_batch(connection: Connection) -> int:
    latest = latest_event(connection, KIND, KIND)
    return 1 if latest is None else latest.version + 1


def insert_assignments(
    connection: Connection, queues: Mapping[str, Sequence[Assignment]], *, actor: str
) -> int:
    """Append assignments to queues, by login, inside a transaction; return how many."""
    rows: list[dict[str, Any]] = []
    for login, queue in queues.items():
        account_id = get_account(connection, login).account_id
        last = connection.scalar(
            select(func.max(assignment.c.position)).where(assignment.c.account_id == account_id)
        )
        rows += [
            {
                "account_id": account_id,
                "image_id": one.image_id,
                "purpose": one.purpose,
                "position": position,
                "state": "open",
                "version": 0,
            }
            for position, one in enumerate(queue, start=(last or 0) + 1)
        ]
    if not rows:
        return 0
    entry = append_event(
        connection,
        kind=KIND,
        subject=KIND,
        actor=actor,
        payload={
            "n_assignments": len(rows),
            "sha256": unordered_digest(rows, ASSIGNMENT_COLUMNS),
        },
    )
    connection.execute(insert(assignment), [{**row, "batch": entry.sequence} for row in rows])
    return len(rows)


def _active_annotators(connection: Connection) -> list[str]:
    query = select(account.c.login).where(account.c.role == "annotator", account.c.active)
    return list(connection.scalars(query.order_by(account.c.login)))


def _readers_by_image(connection: Connection) -> dict[str, frozenset[str]]:
    """Return who has read each image or will read it."""
    rows = connection.execute(
        select(assignment.c.image_id, account.c.login)
        .join(account)
        .where(
            assignment.c.purpose != "repeat",
            # An inactive account will not read what it has not read yet.
            or_(account.c.active, assignment.c.version > 0),
        )
    )
    readers: dict[str, set[str]] = defaultdict(set)
    for image_id, login in rows:
        readers[image_id].add(login)
    return {image_id: frozenset(logins) for image_id, logins in readers.items()}
