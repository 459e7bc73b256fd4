"""The rows of a file of corrections: read strictly, appended durably, never changed or removed."""

import csv
import errno
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from glomerulab.errors import OutputError, PredictionsError
from glomerulab.runtime.files import decode_utf8, flush_folder, lock_file, private_opener

__all__ = ["WHERE_FROM", "CorrectionRow", "append_rows", "read_rows"]

COLUMNS = ("time", "by", "image_id", "labels", "reason", "place")
N_COLUMNS_WITHOUT_PLACE = 5
"""Of files from before the column ``place``; they are continued without it."""
WHERE_FROM = "the page of a case's report writes one with *Save them as a file*"
PLACE = re.compile(r"|-?\d+ -?\d+ [1-9]\d* [1-9]\d*")
QUOTED = re.compile(r'"(?:[^"]|"")*"')
LONE_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")


@dataclass(frozen=True)
class CorrectionRow:
    """One row of the file, every cell as text."""

    time: str
    by: str
    image_id: str
    labels: str
    reason: str
    place: str = ""
    """Of the region on its slide: ``x y width height`` in level-0 pixels; empty if not known."""

    @property
    def key(self) -> tuple[str, ...]:
        """Everything but the place: rows with the same key are the same correction."""
        return astuple(self)[:N_COLUMNS_WITHOUT_PLACE]


def read_rows(path: Path) -> tuple[CorrectionRow, ...]:
    """Read a file of corrections, oldest first; a missing file has none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PredictionsError(
            f"the file of corrections cannot be read: {error.strerror}", where=str(path)
        ) from error
    return _parse(content, path)


def append_rows(
    path: Path, choose: Callable[[tuple[CorrectionRow, ...]], Sequence[CorrectionRow]]
) -> None:
    """Append rows under a lock; when this returns, they are on disk and were read back.

    A damaged file is refused and left as it is, since its torn end would swallow the next row.
    """
    try:
        with open(path, "a+b", buffering=0, opener=private_opener) as file:
            lock_file(file)
            file.seek(0)
            content = file.readall()
            stored = _parse(content, path)
            rows = choose(stored)
            if rows:
                added = _csv_text(rows, content).encode()
                _check_readable(content + added, (*stored, *rows), path)
                _append(file, added, content=content)
    except OSError as error:
        raise OutputError(
            f"the file of corrections cannot be written: {error.strerror or error}", where=str(path)
        ) from error


def _check_readable(content: bytes, rows: Sequence[CorrectionRow], path: Path) -> None:
    """Refuse rows that would not be read back as they are."""
    if any("\x00" in cell for row in rows for cell in astuple(row)):
        raise PredictionsError("a correction cannot contain the character NUL; remove it")
    if [row.key for row in _parse(content, path)] != [row.key for row in rows]:
        raise PredictionsError(
            "the correction would not be read back as it is; shorten its texts and remove unusual "
            "characters"
        )


def _append(file: io.FileIO, added: bytes, *, content: bytes) -> None:
    """Append all or nothing: half a row would make the whole file unreadable."""
    try:
        left = added
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
        _check_read_back(file, content + added)
        if not content:
            flush_folder(Path(os.fsdecode(file.name)).parent)
    except OSError:
        file.truncate(len(content))
        raise


def _check_read_back(file: io.FileIO, expected: bytes) -> None:
    file.seek(0)
    if file.readall() != expected:
        raise OSError(errno.EIO, "what was written was not read back; check the disk")


def _parse(content: bytes, path: Path) -> tuple[CorrectionRow, ...]:
    """Read rows strictly: what cannot be one of them is refused with its line."""
    text = decode_utf8(content, "file of corrections", error=PredictionsError, where=str(path))
    _check_characters(text, path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[str, list[str]]] = []
    try:
        for cells in reader:
            if cells:
                rows.append((f"row {len(rows) + 1} (line {reader.line_num})", cells))
    except csv.Error as error:
        at = f"row {len(rows) + 1} (line {reader.line_num})"
        raise _damaged(path, at, f"is torn or damaged ({error})") from error
    if not rows:
        return ()
    (_, header), *body = rows
    if tuple(header) not in {COLUMNS, COLUMNS[:N_COLUMNS_WITHOUT_PLACE]}:
        raise PredictionsError(
            f"the columns of a file of corrections must be {', '.join(COLUMNS)}; {WHERE_FROM}",
            where=str(path),
        )
    for at, cells in body:
        if [cell.removeprefix("\ufeff") for cell in cells] == header:
            raise _damaged(path, at, "is a second header, as of two files joined")
        if len(cells) != len(header) or not PLACE.fullmatch(dict(enumerate(cells)).get(5, "")):
            raise _damaged(
                path, at, f"is incomplete or damaged; it needs {', '.join(COLUMNS[:-1])}"
            )
    if not text.endswith("\n"):
        raise _damaged(path, rows[-1][0], "has no line end and may be torn")
    return tuple(CorrectionRow(*cells) for _, cells in body)


def _check_characters(text: str, path: Path) -> None:
    before, nul, _ = text.partition("\x00")
    if nul:
        line = before.count("\n") + 1
        raise _damaged(path, f"line {line}", "contains the character NUL")
    outside = QUOTED.sub(lambda found: "x" * len(found[0]), text)
    lone = LONE_CARRIAGE_RETURN.search(outside)
    if lone is not None:
        line = outside.count("\n", 0, lone.start()) + 1
        raise _damaged(path, f"line {line}", "ends in a carriage return without a line feed")


def _damaged(path: Path, at: str, problem: str) -> PredictionsError:
    return PredictionsError(
        f"{at} of the file of corrections {problem}; in a text editor, complete this line or "
        "remove it, and end every line with a line feed. Nothing was changed",
        where=str(path),
    )


def _csv_text(rows: Sequence[CorrectionRow], content: bytes) -> str:
    """Write rows as the continuation of a file's content."""
    buffer = io.StringIO(newline="")
    # All cells are quoted: an unquoted carriage return in a reason would end the row.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    present = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    header = next((cells for cells in present if cells), None)
    if header is None:
        buffer.write(",".join(COLUMNS) + "\n")
    writer.writerows(astuple(row)[: len(header or COLUMNS)] for row in rows)
    return buffer.getvalue()
