"""The audit ledger of a study: every change in order, each entry chained to the one before.

The hash of an entry covers all its columns and the hash of the entry before it. Changing, removing
or reordering an entry breaks the chain from there on. Removing the last entries, or recomputing the
whole chain, is detected with a head that an earlier export wrote down.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Integer, RowMapping, insert, select, type_coerce, update

from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.schema import (
    account,
    assignment,
    event,
    image,
    ledger_head,
    model_call,
)
from glomerulab.errors import AnnotationError

FIRST_HASH = "0" * 64
MODEL = "model"
HEAD_PATTERN = re.compile(r"(\d+):([0-9a-f]{64})")

HASHED_COLUMNS = (
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

# Columns of other tables whose digest an entry records; the rest follows from the annotations.
IMAGE_COLUMNS = (
    "image_id",
    "position",
    "image_path",
    "patient_id",
    "slide_id",
    "stain",
    "mpp",
    "x",
    "y",
    "width",
    "height",
    "region_id",
    "others",
)
ASSIGNMENT_COLUMNS = ("account_id", "image_id", "purpose", "position")
MODEL_CALL_COLUMNS = ("image_id", "label_id", "probability")

Row = RowMapping | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the ledger."""

    sequence: int
    """From 1, without gaps."""
    at: datetime
    """UTC."""
    actor: str
    """Login."""
    kind: str
    """``study``, ``account``, ``images``, ``model``, ``assignments``, ``annotation``, ``region``,
    ``import`` or ``adjudication``."""
    subject: str
    """Id of the item, image, region or login that the entry is about."""
    version: int
    """Counts the entries of one kind about one subject, from 1."""
    save_key: str | None
    payload: Mapping[str, Any]
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What differs between entries that are appended together."""

    subject: str
    version: int
    payload: Mapping[str, Any]
    save_key: str | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """The latest entry: kept elsewhere, it proves later that no entry up to it was altered."""

    sequence: int
    hash: str

    def __str__(self) -> str:
        """``SEQUENCE:HASH``, as `parse_head` reads it."""
        return f"{self.sequence}:{self.hash}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of checking a whole store."""

    n_entries: int
    head: Head
    problems: tuple[str, ...]
    """Empty if the ledger is intact, and the other tables and the images agree with it."""
    n_images: int
    """Images whose files were compared with what readers saw."""
    unread_images: tuple[str, ...]
    """Ids of the images that readers saw and whose files cannot be read here."""


def append_event(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    actor: str,
    payload: Mapping[str, Any],
    version: int | None = None,
    save_key: str | None = None,
) -> Event:
    """Append an entry, in a transaction of `Store.writing`."""
    if version is None:
        latest = latest_event(connection, kind, subject)
        version = 1 if latest is None else latest.version + 1
    entry = NewEntry(subject, version, payload, save_key)
    return append_events(connection, [entry], kind=kind, actor=actor)[0]


def append_events(
    connection: Connection, entries: Sequence["NewEntry"], *, kind: str, actor: str
) -> list[Event]:
    """Append several entries of one kind, as `append_event`."""
    if not entries:
        return []
    head = _read_head(connection)
    previous = head.hash
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(entries, start=head.sequence + 1):
        row = {
            "sequence": number,
            "at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "actor": actor,
            "kind": kind,
            "subject": one.subject,
            "version": one.version,
            "save_key": one.save_key,
            "payload": canonical_json(one.payload),
            "previous_hash": previous,
        }
        previous = entry_hash(row)
        rows.append({**row, "hash": previous})
    connection.execute(insert(event), rows)
    connection.execute(update(ledger_head).values(sequence=rows[-1]["sequence"], hash=previous))
    return [event_from_row(row) for row in rows]


def latest_event(connection: Connection, kind: str, subject: str) -> Event | None:
    """Return the latest entry of a kind about a subject, None if there is none."""
    rows = connection.execute(
        select(event)
        .where(event.c.kind == kind, event.c.subject == subject)
        .order_by(event.c.version.desc())
        .limit(1)
    )
    row = rows.mappings().first()
    return None if row is None else event_from_row(row)


def model_batch(connection: Connection) -> str | None:
    """Return the batch of the model's probabilities that are in use; None if there are none."""
    latest = latest_event(connection, MODEL, MODEL)
    return None if latest is None else str(latest.payload["sha256"])


def find_save(
    connection: Connection, save_key: str, *, kind: str, subject: str, content: Mapping[str, Any]
) -> Event | None:
    """Return the entry that an earlier try of the same save made, None if the save is new."""
    check_save_key(save_key)
    rows = connection.execute(select(event).where(event.c.save_key == save_key))
    row = rows.mappings().first()
    return None if row is None else check_save(event_from_row(row), kind, subject, content)


def check_save_key(save_key: str) -> None:
    """Raise an error if a text is no save key."""
    if not 8 <= len(save_key) <= 64 or not save_key.isprintable():
        raise AnnotationError(f"a save key has 8 to 64 printable characters, got {save_key!r}")


def check_save(found: Event, kind: str, subject: str, content: Mapping[str, Any]) -> Event:
    """Return the entry of a save key; raise an error if it was made by another save."""
    same = all(found.payload.get(name) == value for name, value in content.items())
    if (found.kind, found.subject) != (kind, subject) or not same:
        raise AnnotationError(
            f"the save key {found.save_key!r} was used for another save; a new save needs a new key"
        )
    return found


def event_from_row(row: Row) -> Event:
    """Build an `Event` from a row of its table."""
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
    """Return the JSON text of a value with sorted keys, no spaces and no NaN."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def entry_hash(row: Row) -> str:
    """Return the SHA-256 of all columns of an entry except the hash itself."""
    text = canonical_json([row[name] for name in HASHED_COLUMNS])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def images_digest(rows: Iterable[Row]) -> str:
    """Return the SHA-256 of rows of the image table, in the order of their positions."""
    text = "".join(canonical_json([row[name] for name in IMAGE_COLUMNS]) for row in rows)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def unordered_digest(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Return the SHA-256 of the columns of some rows, independent of the order of the rows."""
    lines = sorted(canonical_json([row[name] for name in columns]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()


def parse_head(text: str) -> Head:
    """Parse the ``SEQUENCE:HASH`` that an export printed."""
    match = HEAD_PATTERN.fullmatch(text.strip())
    if match is None:
        raise AnnotationError(f"a head looks like 1234:9f86d0..., got {text.strip()!r}")
    return Head(int(match[1]), match[2])


def read_head(store: Store) -> Head:
    """Return the latest entry of the ledger; sequence 0 if it is empty."""
    with store.reading() as connection:
        return _read_head(connection)


def iterate_events(store: Store) -> Iterator[Event]:
    """Yield every entry of one state of the ledger, in order."""
    with store.reading() as connection:
        for row in _rows(connection):
            yield event_from_row(row)


def verify_store(store: Store, *, earlier: Head | None = None) -> Verification:
    """Check the chain of the ledger, and that the other tables and the images agree with it.

    Password hashes, sessions and the signing key are not in the ledger and not checked.

    Parameters
    ----------
    earlier : Head, optional
        As an export wrote it down; also detects entries that were cut off or recomputed.
    """
    problems: list[str] = []
    expected = _ExpectedTables()
    sequence, previous = 0, FIRST_HASH
    with store.reading() as connection:
        for row in _rows(connection):
            sequence += 1
            found = _entry_problems(row, sequence, previous)
            # The payload of a changed entry may not even be JSON.
            problems += found or expected.add_row(row)
            if earlier is not None and sequence == earlier.sequence and row["hash"] != earlier.hash:
                problems.append(f"entry {sequence} is not the one of the head {earlier}")
            sequence, previous = row["sequence"], row["hash"]
        problems += _head_problems(connection, Head(sequence, previous))
        if earlier is not None and earlier.sequence > sequence:
            problems.append(
                f"the ledger ends with entry {sequence}; there were {earlier.sequence} entries"
            )
        problems += expected.problems(connection)
        seen = expected.seen_images(connection)
    problems += seen.problems()
    return Verification(
        sequence, Head(sequence, previous), tuple(problems), len(seen.now), seen.unread
    )


def _rows(connection: Connection) -> Iterator[RowMapping]:
    rows = connection.execution_options(yield_per=1000).execute(
        select(event).order_by(event.c.sequence)
    )
    yield from rows.mappings()


def _read_head(connection: Connection) -> Head:
    rows = connection.execute(select(ledger_head.c.sequence, ledger_head.c.hash)).all()
    if len(rows) != 1:
        raise LookupError(f"the ledger has {len(rows)} heads in place of one")
    return Head(rows[0].sequence, rows[0].hash)


def _head_problems(connection: Connection, last: Head) -> list[str]:
    try:
        head = _read_head(connection)
    except LookupError as error:
        return [str(error)]
    if head == last:
        return []
    return [f"the ledger ends with entry {last.sequence}, its head names entry {head.sequence}"]


def _entry_problems(row: RowMapping, sequence: int, previous: str) -> list[str]:
    """Compare an entry with its own hash, the expected sequence and the hash before it."""
    problems = []
    if row["sequence"] != sequence:
        problems.append(f"entry {sequence} is missing")
    elif row["previous_hash"] != previous:
        problems.append(f"entry {sequence} does not follow the one before it")
    if _digest(lambda: entry_hash(row)) != row["hash"]:
        problems.append(f"entry {row['sequence']} ({row['kind']}) was changed")
    return problems


def _digest(compute: Callable[[], str]) -> str | None:
    """Return a digest; None of values that JSON cannot hold, which no entry was made of."""
    try:
        return compute()
    except (TypeError, ValueError):
        return None


class _ExpectedTables:
    """The contents that the other tables must have, collected from the ledger entry by entry."""

    def __init__(self) -> None:
        self._images: dict[int, str] = {}
        self._assignments: dict[int, str] = {}
        self._model = unordered_digest([], MODEL_CALL_COLUMNS)
        self._accounts: dict[str, tuple[str, str, bool]] = {}
        self._versions: Counter[int] = Counter()
        self._items: dict[int, _Item] = {}
        self._seen: dict[str, dict[str, int]] = {}
        self._image_root: Path | None = None

    def add_row(self, row: RowMapping) -> list[str]:
        """Add an entry whose hash is right; describe what is wrong with its content."""
        try:
            self._add(event_from_row(row))
        except (AttributeError, KeyError, TypeError, ValueError):  # its hash was recomputed
            return [f"entry {row['sequence']} ({row['kind']}) has no valid content"]
        return []

    def _add(self, entry: Event) -> None:
        payload = entry.payload
        if entry.kind == "images":
            self._images[entry.sequence] = payload["sha256"]
        elif entry.kind == "assignments":
            self._assignments[entry.sequence] = payload["sha256"]
        elif entry.kind == MODEL:
            self._model = payload["sha256"]
        elif entry.kind == "account":
            self._accounts[entry.subject] = (payload["name"], payload["role"], payload["active"])
        elif entry.kind == "study":
            self._image_root = Path(payload["image_root"])
        elif entry.kind == "annotation":
            state = "done" if payload["skip_reason"] is None else "skipped"
            item = _Item(state, entry.actor, payload["image_id"], payload["purpose"])
            self._versions[int(entry.subject)] += 1
            self._items[int(entry.subject)] = item
            if payload["image_sha256"] is not None:
                seen = self._seen.setdefault(payload["image_id"], {})
                seen.setdefault(payload["image_sha256"], entry.sequence)

    def seen_images(self, connection: Connection) -> "_SeenImages":
        """Hash the files of the images that readers saw."""
        paths = dict(connection.execute(select(image.c.image_id, image.c.image_path)).all())
        now: dict[str, str] = {}
        unread: list[str] = []
        for image_id in self._seen:
            try:
                with ((self._image_root or Path()) / paths[image_id]).open("rb") as file:
                    now[image_id] = hashlib.file_digest(file, "sha256").hexdigest()
            except (KeyError, OSError, TypeError, ValueError):  # a path may have been changed too
                unread.append(image_id)
        return _SeenImages(self._seen, now, tuple(unread))

    def problems(self, connection: Connection) -> list[str]:
        """Describe where the tables differ from the ledger."""
        return [
            *self._account_problems(connection),
            *self._image_problems(connection),
            *self._assignment_problems(connection),
            *self._model_problems(connection),
        ]

    def _model_problems(self, connection: Connection) -> list[str]:
        # Those of another batch are seen by nobody: an import that has not ended, or that did.
        query = select(model_call).where(model_call.c.batch == self._model)
        rows = list(connection.execute(query).mappings())
        if _digest(lambda: unordered_digest(rows, MODEL_CALL_COLUMNS)) == self._model:
            return []
        return ["the model's probabilities are not those that were imported"]

    def _account_problems(self, connection: Connection) -> list[str]:
        active = type_coerce(account.c.active, Integer).label("active")  # as it is stored
        query = select(account.c.login, account.c.name, account.c.role, active)
        rows = connection.execute(query.order_by(account.c.account_id)).all()
        found = {login: (name, role, is_active) for login, name, role, is_active in rows}
        problems = [
            f"account {login} differs from the ledger"
            for login in sorted({*found, *self._accounts}, key=str)
            if found.get(login) != self._accounts.get(login)
        ]
        if not problems and list(found) != list(self._accounts):
            problems.append("the accounts do not have the numbers under which they were created")
        return problems

    def _image_problems(self, connection: Connection) -> list[str]:
        batches: dict[int, list[RowMapping]] = {batch: [] for batch in self._images}
        for row in connection.execute(select(image).order_by(image.c.position)).mappings():
            batches.setdefault(row["batch"], []).append(row)
        return [
            f"the images of entry {batch} are not those that were added"
            for batch, rows in batches.items()
            if _digest(partial(images_digest, rows)) != self._images.get(batch, "")
        ]

    def _assignment_problems(self, connection: Connection) -> list[str]:
        batches: dict[int, list[RowMapping]] = {batch: [] for batch in self._assignments}
        problems = []
        logins = dict(connection.execute(select(account.c.account_id, account.c.login)).all())
        for row in connection.execute(select(assignment)).mappings():
            batches.setdefault(row["batch"], []).append(row)
            number = row["assignment_id"]
            version = self._versions.pop(number, 0)
            item = _Item(
                row["state"], logins.get(row["account_id"]), row["image_id"], row["purpose"]
            )
            expected = self._items.get(number, replace(item, state="open"))
            if (row["version"], item) != (version, expected):
                problems.append(f"item {number} differs from its annotations")
        problems += [
            f"the items of entry {batch} are not those that were assigned"
            for batch, rows in batches.items()
            if _digest(partial(unordered_digest, rows, ASSIGNMENT_COLUMNS))
            != self._assignments.get(batch, "")
        ]
        problems += [f"item {item} was annotated and is missing" for item in self._versions]
        return problems


@dataclass(frozen=True, slots=True)
class _Item:
    """What the annotations of an item say of its row."""

    state: str
    login: str | None
    image_id: str
    purpose: str


@dataclass(frozen=True, slots=True)
class _SeenImages:
    """The digests of the images that readers saw, and of their files now."""

    seen: Mapping[str, Mapping[str, int]]
    """Image id to the digests that were shown, each with its first entry."""
    now: Mapping[str, str]
    unread: tuple[str, ...]

    def problems(self) -> list[str]:
        """Describe the images whose files are not what readers saw."""
        shown_as = {digest: image_id for image_id, seen in self.seen.items() for digest in seen}
        problems = []
        for image_id, now in self.now.items():
            others = [entry for digest, entry in self.seen[image_id].items() if digest != now]
            if not others:
                continue
            is_other = shown_as.get(now, image_id) != image_id
            what = f"; it is the one that was shown as image {shown_as[now]!r}" if is_other else ""
            problems.append(
                f"the file of image {image_id!r} is not the one that was shown when entry "
                f"{min(others)} was saved{what}"
            )
        return problems
