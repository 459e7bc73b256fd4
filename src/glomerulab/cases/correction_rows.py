"""The file of overrides as it lies on the disk: rows that are appended and never changed.

It knows what a whole row is, and nothing of what it means: whether there is such an image or label
is asked in `glomerulab.cases.corrections`.
"""

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from glomerulab.errors import OutputError, PredictionsError
from glomerulab.runtime.files import lock_file

__all__ = ["CorrectionRow", "append_rows", "read_rows"]

COLUMNS = ("time", "by", "image_id", "labels", "reason", "place")
N_BEFORE_PLACES = 5
"""Columns of files that were begun before the place was kept; they go on without it."""
PLACE = re.compile(r"|-?\d+ -?\d+ [1-9]\d* [1-9]\d*")


@dataclass(frozen=True)
class CorrectionRow:
    """One entry as the file holds it, every cell as text."""

    time: str
    by: str
    image_id: str
    labels: str
    reason: str
    place: str = ""
    """Of the region on its slide: ``x y width height`` in level-0 pixels; empty if not known."""

    @property
    def said(self) -> tuple[str, ...]:
        """Who said what, when and why of which image: what makes an entry the same one."""
        return astuple(self)[:N_BEFORE_PLACES]


def read_rows(path: Path) -> tuple[CorrectionRow, ...]:
    """Read a file of entries, oldest first.

    Parameters
    ----------
    path : Path
        May be missing.

    Returns
    -------
    tuple of OverrideRow

    Raises
    ------
    PredictionsError
        If it cannot be read, or an entry is not whole; the entry is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PredictionsError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return _parsed(content, path)


def append_rows(
    path: Path, choose: Callable[[tuple[CorrectionRow, ...]], Sequence[CorrectionRow]]
) -> None:
    """Append rows while nobody else can, on disk when this returns.

    Parameters
    ----------
    path : Path
        Made if need be.
    choose : callable
        Is given every row that is there, and gives those to append; what it raises goes on, and
        nothing is written.

    Raises
    ------
    OutputError
        If the file cannot be written; what it held it still holds.
    PredictionsError
        If it is damaged.
    """
    try:
        with path.open("a+b", buffering=0) as file:
            lock_file(file)
            file.seek(0)
            content = file.readall()
            rows = choose(_parsed(content, path))
            if rows:
                _append(file, _text(rows, content).encode(), n_before=len(content))
    except OSError as error:
        raise OutputError(f"cannot write: {error.strerror}", where=str(path)) from error


def _append(file: io.FileIO, added: bytes, *, n_before: int) -> None:
    """Append all or nothing: half a row would keep the whole file from being read."""
    try:
        while added:
            added = added[file.write(added) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(n_before)
        raise


def _parsed(content: bytes, path: Path) -> tuple[CorrectionRow, ...]:
    """Take a file apart, every row of it checked."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise PredictionsError(f"cannot be read: {error}", where=str(path)) from error
    names = tuple(reader.fieldnames or ())
    if names and names not in {COLUMNS, COLUMNS[:N_BEFORE_PLACES]}:
        raise PredictionsError(f"its columns must be {', '.join(COLUMNS)}", where=str(path))
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not PLACE.fullmatch(row.get("place", "")):
            raise PredictionsError(f"entry {line} is not whole", where=str(path))
    return tuple(CorrectionRow(**row) for row in rows)


def _text(rows: Sequence[CorrectionRow], content: bytes) -> str:
    """Write rows as they follow on what is there."""
    buffer = io.StringIO(newline="")
    # Quoted throughout: a lone carriage return in a reason would end the row for whoever reads it.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    n_columns = len(COLUMNS)
    if content.strip():
        n_columns = len(next(csv.reader([content.decode("utf-8-sig").split("\n", 1)[0]])))
        if not content.endswith(b"\n"):  # as some editors leave it
            buffer.write("\n")
    else:
        buffer.write(",".join(COLUMNS) + "\n")
    writer.writerows(astuple(row)[:n_columns] for row in rows)
    return buffer.getvalue()
