"""The rows of a file of corrections: read strictly, appended durably, never changed or removed.

A record beside the file holds a digest of each row that was acknowledged, so that a row that is
removed or changed later is seen. A file without a record, of an earlier version, is read as it is.
"""

import csv
import errno
import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from glomerulab.errors import OutputError, PredictionsError
from glomerulab.runtime.files import (
    atomic_write,
    decode_utf8,
    flush_folder,
    lock_file,
    private_opener,
    read_utf8,
)
from glomerulab.runtime.messages import count_noun

__all__ = [
    "WHERE_FROM",
    "CorrectionRow",
    "LostRows",
    "append_rows",
    "lost_rows",
    "read_rows",
    "refuse_lost_rows",
]

COLUMNS = ("time", "by", "image_id", "labels", "reason", "place")
N_COLUMNS_WITHOUT_PLACE = 5
"""Of files from before the column ``place``; they are continued without it."""
WHERE_FROM = "the page of a case's report writes one with *Save them as a file*"
PLACE = re.compile(r"|-?\d{1,9} -?\d{1,9} [1-9]\d{0,8} [1-9]\d{0,8}", re.ASCII)
QUOTED = re.compile(r'"(?:[^"]|"")*"')
DIGEST = re.compile(r"[0-9a-f]{16}")
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


@dataclass(frozen=True)
class _Recorded:
    """A row that was acknowledged."""

    digest: str
    image_id: str


@dataclass(frozen=True)
class LostRows:
    """What became of rows that were acknowledged."""

    images: tuple[str, ...] = ()
    """Of the rows that were removed or changed, one for each."""
    is_reordered: bool = False
    """Whether those that are left have another order, on which depends which of them counts."""

    def __bool__(self) -> bool:
        return bool(self.images) or self.is_reordered


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


def lost_rows(path: Path) -> LostRows:
    """Return which rows of a file of corrections were removed or changed since they were added.

    Raises
    ------
    PredictionsError
        If the file or its record is damaged.
    """
    return _lost(_read_record(path), read_rows(path))


def refuse_lost_rows(path: Path, lost: LostRows) -> None:
    """Raise PredictionsError if rows were lost."""
    if not lost:
        return
    parts = []
    if lost.images:
        rows = count_noun(len(lost.images), "row was", "rows were")
        images = ", ".join(map(repr, dict.fromkeys(lost.images)))
        parts.append(f"{rows} removed or changed (image {images})")
    if lost.is_reordered:
        parts.append("the rows have another order")
    raise PredictionsError(
        f"the file of corrections is not as it was acknowledged: {'; '.join(parts)}. Take it from "
        "a copy; --accept-edits uses it as it is, and every report states it",
        where=str(path),
    )


def append_rows(
    path: Path, choose: Callable[[tuple[CorrectionRow, ...]], Sequence[CorrectionRow]]
) -> None:
    """Append rows under a lock; when this returns, they are on disk and were read back.

    A damaged file is refused and left as it is, since its torn end would swallow the next row.
    Rows that were removed from it stay in its record, see `lost_rows`.
    """
    try:
        with open(path, "a+b", buffering=0, opener=private_opener) as file:
            lock_file(file)
            file.seek(0)
            content = file.readall()
            stored = _parse(content, path)
            rows = choose(stored)
            if rows:
                record = _read_record(path)
                added = _csv_text(rows, content).encode()
                complete = _check_readable(content + added, (*stored, *rows), path)
                text = _record_text(record, complete)
                _append(file, added, content=content, path=path, record=text)
    except OSError as error:
        raise OutputError(
            f"the file of corrections cannot be written: {error.strerror or error}", where=str(path)
        ) from error


def _check_readable(
    content: bytes, rows: Sequence[CorrectionRow], path: Path
) -> tuple[CorrectionRow, ...]:
    """Return the rows as they will be read; refuse those that would not be read as they are."""
    if any("\x00" in cell for row in rows for cell in astuple(row)):
        raise PredictionsError("a correction cannot contain the character NUL; remove it")
    found = _parse(content, path)
    if [row.key for row in found] != [row.key for row in rows]:
        raise PredictionsError(
            "the correction would not be read back as it is; shorten its texts and remove unusual "
            "characters"
        )
    return found


def _append(file: io.FileIO, added: bytes, *, content: bytes, path: Path, record: str) -> None:
    """Append all or nothing: half a row would make the whole file unreadable."""
    try:
        left = added
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
        _check_read_back(file, content + added)
        if not content:
            flush_folder(path.parent)
        with atomic_write(_record_path(path)) as temporary:
            temporary.write_text(record, encoding="utf-8")
    except (OSError, OutputError):
        file.truncate(len(content))
        raise


def _check_read_back(file: io.FileIO, expected: bytes) -> None:
    file.seek(0)
    if file.readall() != expected:
        raise OSError(errno.EIO, "what was written was not read back; check the disk")


def _record_path(path: Path) -> Path:
    return path.with_suffix(".record.jsonl")


def _read_record(path: Path) -> tuple[_Recorded, ...]:
    """Return what was acknowledged; nothing if the file has no record."""
    place = _record_path(path)
    if not place.exists():
        return ()
    text = read_utf8(place, "record of the corrections", error=PredictionsError)
    try:
        found = [_Recorded(*map(str, json.loads(line))) for line in text.split("\n")[:-1]]
    except (ValueError, TypeError, RecursionError):
        found = []
    if not text.endswith("\n") or not all(DIGEST.fullmatch(one.digest) for one in found):
        found = []
    if not found:
        raise PredictionsError(
            "the record of the corrections is damaged; take it from a copy. If you remove it, "
            "corrections that were removed are not noticed",
            where=str(place),
        )
    return tuple(found)


def _lost(record: Sequence[_Recorded], rows: Sequence[CorrectionRow]) -> LostRows:
    before, now = [one.digest for one in record], [_digest(row) for row in rows]
    missing, images = Counter(before) - Counter(now), []
    for one in record:
        if missing[one.digest]:
            missing[one.digest] -= 1
            images.append(one.image_id)
    both = set(before) & set(now)
    kept = [digest for digest in dict.fromkeys(before) if digest in both]
    left = [digest for digest in dict.fromkeys(now) if digest in both]
    return LostRows(tuple(images), is_reordered=kept != left)


def _record_text(record: Sequence[_Recorded], rows: Sequence[CorrectionRow]) -> str:
    """Return the record after rows were added; rows that were lost stay in it.

    Its lines are shorter than the rows, so that a full disk ends the rows first.
    """
    added, known = [], Counter(one.digest for one in record)
    for row in rows:
        digest = _digest(row)
        if known[digest]:
            known[digest] -= 1
        else:
            added.append(_Recorded(digest, row.image_id))
    lines = [[one.digest, one.image_id] for one in (*record, *added)]
    return "".join(
        json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines
    )


def _digest(row: CorrectionRow) -> str:
    text = json.dumps(astuple(row), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
