"""Reading the ledger back: every entry in order, and whether all of it is as it was written."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, select

from glomerulab.apps.annotation.store.assignments import assignments_digest
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import images_digest
from glomerulab.apps.annotation.store.ledger import FIRST_HASH, Event, entry_hash, event_of
from glomerulab.apps.annotation.store.model_calls import model_calls_digest
from glomerulab.apps.annotation.store.schema import (
    account,
    assignment,
    event,
    image,
    ledger_head,
    model_call,
)
from glomerulab.errors import AnnotationError

__all__ = ["Head", "Verification", "iterate_events", "parse_head", "read_head", "verify_store"]

HEAD_PATTERN = re.compile(r"(\d+):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry: kept apart, it proves later that no entry up to it was touched."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        """As `parse_head` reads it."""
        return f"{self.sequence}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of the whole store found."""

    n_entries: int
    head: Head
    problems: tuple[str, ...]
    """Empty if everything is as it was written."""


def parse_head(text: str) -> Head:
    """Read a head as an export wrote it down.

    Parameters
    ----------
    text : str
        ``SEQUENCE:HASH``.

    Returns
    -------
    Head

    Raises
    ------
    AnnotationError
        If it is nothing of the kind.
    """
    match = HEAD_PATTERN.fullmatch(text.strip())
    if match is None:
        raise AnnotationError(f"a head looks like 1234:9f86d0..., got {text.strip()!r}")
    return Head(int(match[1]), match[2])


def read_head(store: Store) -> Head:
    """Return the newest entry of the ledger; sequence 0 if there is none."""
    with store.reading() as connection:
        return _head(connection)


def iterate_events(store: Store) -> Iterator[Event]:
    """Give every entry of the ledger as it was when the first was asked for, in order."""
    with store.reading() as connection:
        for row in _rows(connection):
            yield event_of(row)


def verify_store(store: Store, *, earlier: Head | None = None) -> Verification:
    """Check that every entry is as written, and that the tables say what the ledger says.

    Parameters
    ----------
    store : Store
    earlier : Head, optional
        As an export wrote it down: proves as well that nothing up to it was cut off or made anew.

    Returns
    -------
    Verification
    """
    problems: list[str] = []
    follows = _Follows()
    sequence, previous = 0, FIRST_HASH
    with store.reading() as connection:
        for row in _rows(connection):
            sequence += 1
            wrong = _entry_problems(row, sequence, previous)
            problems += wrong
            if earlier is not None and sequence == earlier.sequence and row["hash"] != earlier.hash:
                problems.append(f"entry {sequence} is not the one of the head {earlier}")
            sequence, previous = row["sequence"], row["hash"]
            if not wrong:  # what a changed entry says is not to be read
                follows.add(row)
        head = _head(connection)
        if head != Head(sequence, previous):
            problems.append(f"the ledger ends with entry {sequence}, its head says {head.sequence}")
        if earlier is not None and earlier.sequence > sequence:
            problems.append(
                f"the ledger ends with entry {sequence}; there were {earlier.sequence} entries"
            )
        problems += follows.problems(connection)
    return Verification(sequence, Head(sequence, previous), tuple(problems))


def _rows(connection: Connection) -> Iterator[RowMapping]:
    rows = connection.execution_options(yield_per=1000).execute(
        select(event).order_by(event.c.sequence)
    )
    yield from rows.mappings()


def _head(connection: Connection) -> Head:
    row = connection.execute(select(ledger_head.c.sequence, ledger_head.c.hash)).one()
    return Head(row.sequence, row.hash)


def _entry_problems(row: RowMapping, sequence: int, previous: str) -> list[str]:
    """Say what is wrong with an entry that should have this sequence and follow this hash."""
    problems = []
    if row["sequence"] != sequence:
        problems.append(f"entry {sequence} is missing")
    elif row["previous_hash"] != previous:
        problems.append(f"entry {sequence} does not follow the one before it")
    if entry_hash(row) != row["hash"]:
        problems.append(f"entry {row['sequence']} ({row['kind']}) was changed")
    return problems


class _Follows:
    """What the other tables must hold, told from the ledger entry by entry."""

    def __init__(self) -> None:
        self._images: dict[int, str] = {}
        self._assignments: dict[int, str] = {}
        self._model = model_calls_digest([])
        self._accounts: dict[str, tuple[str, str, bool]] = {}
        self._versions: Counter[int] = Counter()
        self._skipped: dict[int, bool] = {}

    def add(self, row: RowMapping) -> None:
        """Take one entry in."""
        entry = event_of(row)
        said = entry.payload
        if entry.kind == "images":
            self._images[entry.sequence] = said["sha256"]
        elif entry.kind == "assignments":
            self._assignments[entry.sequence] = said["sha256"]
        elif entry.kind == "model":
            self._model = said["sha256"]
        elif entry.kind == "account":
            self._accounts[entry.subject] = (said["name"], said["role"], said["active"])
        elif entry.kind == "annotation":
            self._versions[int(entry.subject)] += 1
            self._skipped[int(entry.subject)] = said["skip_reason"] is not None

    def problems(self, connection: Connection) -> list[str]:
        """Say where the tables differ from the ledger."""
        return [
            *self._account_problems(connection),
            *self._image_problems(connection),
            *self._assignment_problems(connection),
            *self._model_problems(connection),
        ]

    def _model_problems(self, connection: Connection) -> list[str]:
        rows = connection.execute(select(model_call)).mappings()
        if model_calls_digest(rows) == self._model:
            return []
        return ["the model's probabilities are not those that were imported"]

    def _account_problems(self, connection: Connection) -> list[str]:
        rows = connection.execute(select(account)).mappings()
        found = {row["login"]: (row["name"], row["role"], bool(row["active"])) for row in rows}
        logins = sorted(set(found) | set(self._accounts))
        return [
            f"account {login} is not as the ledger says"
            for login in logins
            if found.get(login) != self._accounts.get(login)
        ]

    def _image_problems(self, connection: Connection) -> list[str]:
        batches: dict[int, list[RowMapping]] = {batch: [] for batch in self._images}
        for row in connection.execute(select(image).order_by(image.c.position)).mappings():
            batches.setdefault(row["batch"], []).append(row)
        return [
            f"the images of entry {batch} are not those that were added"
            for batch, rows in batches.items()
            if images_digest(rows) != self._images.get(batch)
        ]

    def _assignment_problems(self, connection: Connection) -> list[str]:
        batches: dict[int, list[RowMapping]] = {batch: [] for batch in self._assignments}
        problems = []
        for row in connection.execute(select(assignment)).mappings():
            batches.setdefault(row["batch"], []).append(row)
            item = row["assignment_id"]
            version = self._versions.pop(item, 0)
            state = "open" if not version else "skipped" if self._skipped[item] else "done"
            if (row["version"], row["state"]) != (version, state):
                problems.append(f"item {item} is not as its annotations say")
        problems += [
            f"the items of entry {batch} are not those that were assigned"
            for batch, rows in batches.items()
            if assignments_digest(rows) != self._assignments.get(batch)
        ]
        problems += [f"item {item} was annotated and is missing" for item in self._versions]
        return problems
