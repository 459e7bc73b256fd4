"""What people said instead of the model: an append-only file beside the predictions.

Nothing is ever changed or removed in it; of several entries for one image the last one counts. The
model's own call stays where it was.
"""

import csv
import datetime as dt
import fcntl
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.calls import Reading
from glomerulab.case_folder import CaseFolder
from glomerulab.errors import OutputError, PredictionsError
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "NOT_A_GLOMERULUS",
    "OVERRIDES_FILE",
    "AddedChanges",
    "Override",
    "add_changes",
    "add_override",
    "labels_text",
    "read_overrides",
]

OVERRIDES_FILE = "overrides.csv"
NOT_A_GLOMERULUS = "not_a_glomerulus"
"""Stands in place of labels where an image shows none."""
COLUMNS = ("time", "by", "image_id", "labels", "reason")


@dataclass(frozen=True)
class Override:
    """One person's word on one image."""

    time: str
    """UTC, ISO 8601."""
    by: str
    image_id: str
    reading: Reading
    """The labels that are present; None: no glomerulus."""
    reason: str

    @property
    def labels_text(self) -> str:
        """The reading as the file holds it."""
        return labels_text(self.reading)


@dataclass(frozen=True)
class AddedChanges:
    """What became of a file of changes."""

    added: tuple[Override, ...]
    known: tuple[Override, ...]
    """Were added by an earlier call."""
    overtaken: tuple[tuple[Override, Override], ...]
    """Not added, each with a later entry of the same image that its author may not have seen."""


def labels_text(reading: Reading) -> str:
    """Write a reading as the file holds it: label ids joined by ``+``."""
    return NOT_A_GLOMERULUS if reading is None else "+".join(sorted(reading))


def read_overrides(case: CaseFolder) -> tuple[Override, ...]:
    """Read all entries, oldest first.

    Parameters
    ----------
    case : CaseFolder

    Returns
    -------
    tuple of Override
        Empty where nobody has changed anything.

    Raises
    ------
    PredictionsError
        If the file is damaged, or names an image or label that is not there.
    """
    path = case.folder / OVERRIDES_FILE
    return _entries(path, case) if path.is_file() else ()


def _entries(path: Path, case: CaseFolder) -> tuple[Override, ...]:
    """Read a file of entries, every one of them checked."""  # noqa: DOC501
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PredictionsError(f"cannot be read: {error}", where=str(path)) from error
    known = {call.image_id for call in case.calls}
    found = []
    for line, row in enumerate(rows, start=2):
        if set(row) != set(COLUMNS) or None in row.values():
            raise PredictionsError(f"entry {line} is not whole", where=str(path))
        if row["image_id"] not in known:
            raise PredictionsError(
                f"entry {line}: no image {row['image_id']!r} in the predictions", where=str(path)
            )
        reading = _parsed(row["labels"], case.taxonomy, where=f"{path}: entry {line}")
        found.append(Override(row["time"], row["by"], row["image_id"], reading, row["reason"]))
    return tuple(found)


def add_override(
    case: CaseFolder, image_id: str, *, labels: Sequence[str], by: str, reason: str
) -> Override:
    """Add one entry, on disk when this returns.

    Parameters
    ----------
    case : CaseFolder
    image_id : str
    labels : sequence of str
        Ids or display names; or only ``not_a_glomerulus``.
    by : str
        Name of the person.
    reason : str

    Returns
    -------
    Override

    Raises
    ------
    PredictionsError
        If there is no such image or label, labels exclude each other, or name or reason are empty.
    OutputError
        If the file cannot be written.
    """
    read_overrides(case)  # a damaged file is not written to
    if image_id not in {call.image_id for call in case.calls}:
        raise PredictionsError(f"no image {image_id!r}", where=str(case.folder))
    if not by.strip() or not reason.strip():
        raise PredictionsError("a change needs the person's name and a reason")
    reading = _parsed("+".join(labels), case.taxonomy, where="labels")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    entry = Override(now, by.strip(), image_id, reading, reason.strip())
    _append(case.folder / OVERRIDES_FILE, [entry])
    return entry


def add_changes(case: CaseFolder, path: Path) -> AddedChanges:
    """Add the changes that the page of a report has saved, with the times they were made at.

    Parameters
    ----------
    case : CaseFolder
    path : Path
        CSV of the columns of ``overrides.csv``. Adding it twice adds nothing twice.

    Returns
    -------
    AddedChanges

    Raises
    ------
    PredictionsError
        If one entry is not whole, has no name, reason or time, or names an image or label that is
        not there; then none is added.
    OutputError
        If the file cannot be written.
    """
    stored = read_overrides(case)
    known, added, overtaken = [], [], []
    for line, change in enumerate(_entries(path, case), start=2):
        if not change.by.strip() or not change.reason.strip():
            raise PredictionsError(f"entry {line} needs a name and a reason", where=str(path))
        made = _instant(change, where=f"{path}: entry {line}")
        later = [one for one in stored if one.image_id == change.image_id
                 and _instant(one, where=str(case.folder / OVERRIDES_FILE)) > made]  # fmt: skip
        if change in stored or change in added:
            known.append(change)
        elif later:
            overtaken.append((change, later[-1]))
        else:
            added.append(change)
    if added:
        _append(case.folder / OVERRIDES_FILE, added)
    return AddedChanges(tuple(added), tuple(known), tuple(overtaken))


def _instant(entry: Override, *, where: str) -> dt.datetime:
    """Return when an entry was made."""  # noqa: DOC501
    try:
        found = dt.datetime.fromisoformat(entry.time)
    except ValueError as error:
        raise PredictionsError(f"no time: {entry.time!r}", where=where) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _parsed(text: str, taxonomy: Taxonomy, *, where: str) -> Reading:
    if text == NOT_A_GLOMERULUS:
        return None
    found = frozenset(taxonomy.find(word).id for word in text.split("+") if word.strip())
    if not found:
        raise PredictionsError("names no label", where=where)
    for first, second in taxonomy.conflicts(dict.fromkeys(found, 1)):
        raise PredictionsError(f"{first} and {second} exclude each other", where=where)
    return found


def _append(path: Path, entries: Sequence[Override]) -> None:
    """Append under a lock, and give nothing back before the disk has it."""  # noqa: DOC501
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    rows = [(one.time, one.by, one.image_id, one.labels_text, one.reason) for one in entries]
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.stat().st_size == 0:
                writer.writerow(COLUMNS)
            writer.writerows(rows)
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(path)) from error
