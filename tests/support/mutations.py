"""Damage to files: bytes, text, and the structures of JSON, CSV, TOML, ZIP, SQLite and Parquet.

`mutated` returns another content for every seed, the same one each time.
"""

import csv
import io
import json
import random
import re
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["mutated"]

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, -1, 1, 255, 256, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, -(2**63))
JSON_TEXTS = (
    *("null", "true", "false", "[]", "{}", '""', "NaN", "Infinity", "-Infinity", "1e308", "-1e308"),
    *("1e-320", "0.1", '"1"', '"x"', '" "', '"\\u0000"', '"\\ud800"', '"../../x"', '"é\\n"'),
    *map(str, NUMBERS),
    "9" * 400,
    "9" * 5000,
    '"' + "x" * 70_000 + '"',
    "[" * 3000 + "]" * 3000,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "[[1,2],[3,4]]",
    '{"id":"normal","name":"x"}',
)
CELLS = (
    *("", " ", "nan", "NaN", "NA", "inf", "-inf", "1e308", "-1e308", "1e400", "true", "x", "é"),
    *("=1+1", "\x00", "\r", "\n", '"', ";", "a,b", "1,5", "1.5", "-0", "00", "1_000", "１", "../x"),
    *map(str, NUMBERS),
    "9" * 400,
    "9" * 5000,
    "x" * 70_000,
    "2026-13-45T99:00:00",
    "9999-12-31T23:59:59+14:00",
    "0001-01-01T00:00:00-14:00",
)


def mutated(name: str, content: bytes, seed: int, others: Sequence[bytes] = ()) -> bytes:
    """Return a damaged copy of a file.

    Parameters
    ----------
    name : str
        Of the file: its suffix chooses the structure that is damaged in half of the cases.
    content : bytes
    seed : int
    others : sequence of bytes
        Contents of other files, to splice and to swap.
    """
    rng = random.Random(seed)
    structure = _structures(name, content)
    for _ in range(20):
        if structure and rng.random() < 0.6:
            result = rng.choice(structure)(content, rng)
        elif others and rng.random() < 0.1:
            result = _spliced(content, rng.choice(others), rng)
        else:
            result = rng.choice(BYTES)(content, rng)
        if structure and rng.random() < 0.2:  # twice
            result = rng.choice((*structure, *BYTES))(result, rng)
        if result != content:
            return result
    return b""


def _structures(name: str, content: bytes) -> tuple[Mutation, ...]:
    by_beginning: dict[bytes, tuple[Mutation, ...]] = {
        b"PK": (_zip,),
        b"SQLite": (_sqlite, _sqlite, _sqlite_schema),
        b"PAR1": (_parquet,),
        b"II": (_tiff, _tiff),
        b"MM": (_tiff, _tiff),
    }
    by_suffix: dict[str, tuple[Mutation, ...]] = {
        ".jsonl": (_text, _json_token),
        ".json": (_text, _json_token, _json_key, _json_key),
        ".geojson": (_text, _json_token, _json_key, _json_key),
        ".toml": (_text, _toml),
        ".csv": (_text, _csv, _csv, _csv),
        ".xml": (_text, _attribute),
        ".safetensors": (_safetensors,),
    }
    for beginning, found in by_beginning.items():
        if content.startswith(beginning):
            return found
    return by_suffix.get(Path(name).suffix.lower(), ())


# Bytes.


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _near_start(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[rng.randrange(min(len(changed), 200))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(changed)


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _cut_out(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + content[start + rng.choice((1, 2, 16, 512)) :]


def _inserted(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    new = rng.choice(
        (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", rng.randbytes(16), b"A" * 100_000, b"\x00" * 5000)
    )
    return content[:place] + new + content[place:]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.choice((1, 8, 64, 1024))]
    return content[:start] + piece * rng.choice((2, 3, 100)) + content[start + len(piece) :]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Overwrite 2, 4 or 8 bytes with a number at an end of its range."""
    kind = rng.choice(("H", "I", "Q"))
    size = struct.calcsize(kind)
    if len(content) < size:
        return b""
    place = rng.randrange(len(content) - size + 1)
    place -= place % size if rng.random() < 0.5 else 0
    value = rng.choice(NUMBERS) % (1 << 8 * size)
    return content[:place] + struct.pack(rng.choice("<>") + kind, value) + content[place + size :]


def _replaced(content: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"",
            b"\x00" * 1000,
            b"\n",
            b"null",
            b"[]",
            b"{}",
            b'""',
            b"1",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"x" * 1_000_000,
            b"\x89PNG\r\n\x1a\n",
            b"PK\x03\x04",
            rng.randbytes(500),
            content + content,
            content[::-1],
        )
    )


BYTES: tuple[Mutation, ...] = (
    _flipped,
    _flipped,
    _near_start,
    _truncated,
    _cut_out,
    _inserted,
    _repeated,
    _number,
    _number,
    _replaced,
)


def _spliced(content: bytes, other: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return other  # the wrong file
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


# Text.


def _text(content: bytes, rng: random.Random) -> bytes:
    """Save a text in another encoding or with other line ends."""
    text = content.decode("utf-8", errors="replace")
    place = rng.randrange(len(text) + 1)
    return rng.choice(
        (
            lambda: text.encode("utf-16", errors="replace"),
            lambda: text.encode("utf-16-be", errors="replace"),
            lambda: (text[:place] + "Zürich" + text[place:]).encode("latin-1", errors="replace"),
            lambda: (text[:place] + "肾" + text[place:]).encode("gb18030", errors="replace"),
            lambda: b"\xef\xbb\xbf" + content,
            lambda: b"\xef\xbb\xbf" * 2 + content,
            lambda: content.replace(b"\n", b"\r"),
            lambda: content.replace(b"\n", b"\r\n"),
            lambda: content.replace(b"\n", b""),
            (text[:place] + "\x00" + text[place:]).encode,
            (text[:place] + "\u2028" + text[place:]).encode,
            text.casefold().encode,
            text.upper().encode,
        )
    )()


JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def _json_token(content: bytes, rng: random.Random) -> bytes:
    """Replace one value of a JSON text, or a key, by another value."""
    text = content.decode("utf-8", errors="replace")
    found = list(JSON_TOKEN.finditer(text))
    if not found:
        return b"null"
    one = rng.choice(found)
    other = rng.choice((*JSON_TEXTS, rng.choice(found)[0]))
    return (text[: one.start()] + other + text[one.end() :]).encode(errors="replace")


def _json_key(content: bytes, rng: random.Random) -> bytes:
    """Remove, double, rename, replace or move one entry of an object or a list."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    holders = list(_holders(value))
    if not holders:
        return b"null"
    holder = rng.choice(holders)
    key: Any = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    action = rng.randrange(5)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, list):
        holder.append(holder[key])
    elif action == 1:
        twice = json.dumps(value)
        entry = f"{json.dumps(key)}: {json.dumps(holder[key])}"
        return twice.replace(entry, f"{entry}, {entry}", 1).encode(errors="replace")
    elif action == 2 and isinstance(holder, dict):
        holder[rng.choice(("", "x", "extra", key.upper()))] = holder.pop(key)
    elif action == 3:
        holder[key] = rng.choice([one for one in holders if one is not holder] or [None])
    else:
        holder[key] = [holder[key]]
    try:
        return json.dumps(value, ensure_ascii=False, indent=1).encode(errors="replace")
    except (ValueError, RecursionError):  # it holds itself now
        return content


def _holders(value: object) -> list[Any]:
    found: list[Any] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list) and one:
            found.append(one)
            waiting += one.values() if isinstance(one, dict) else one
    return found


def _toml(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove or double one line or value."""
    lines = content.decode("utf-8", errors="replace").split("\n")
    stated = [n for n, line in enumerate(lines) if line.strip()]
    if not stated:
        return b"x = 1"
    place = rng.choice(stated)
    key, equals, _ = lines[place].partition("=")
    action = rng.randrange(4)
    if action == 0:
        del lines[place]
    elif action == 1:
        lines.insert(place, lines[place])
    elif action == 2:
        lines[place] = "[" + key.strip(" []") + "]"
    else:
        values = (*JSON_TEXTS, "nan", "inf", "2026-01-01", "12:00:00", "0x7fffffffffffffffffff")
        lines[place] = f"{key}{equals or '='} {rng.choice(values)}"
    return "\n".join(lines).encode(errors="replace")


def _attribute(content: bytes, rng: random.Random) -> bytes:
    """Replace one attribute or text of an XML."""
    text = content.decode("utf-8", errors="replace")
    found = list(re.finditer(r'"[^"]*"|>[^<>]+<|</?\w+', text))
    if not found:
        return content
    one = rng.choice(found)
    new = rng.choice((*CELLS, "<a>" * 20_000, "&lol;", "<!DOCTYPE a [<!ENTITY b 'c'>]>"))
    first, last = one[0][0], one[0][-1]
    if first == '"' or last == "<":
        new = f"{first}{new}{last}"
    return (text[: one.start()] + new + text[one.end() :]).encode(errors="replace")


def _csv(content: bytes, rng: random.Random) -> bytes:
    """Change one cell, row or column."""
    text = content.decode("utf-8", errors="replace")
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except csv.Error:
        return content
    if not rows:
        return b"image_id\n"
    row = rng.choice(rows)
    place = rng.randrange(len(row))
    header = rows[0]
    column = rng.randrange(len(header))
    action = rng.randrange(9)
    if action <= 2:
        row[place] = rng.choice(CELLS)
    elif action <= 5:
        _change_column(rows, column, rng)
    elif action == 6:
        rows.append(list(row))
    elif action == 7:
        row.append(rng.choice(CELLS))
    else:
        del row[place]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", delimiter=rng.choice(",,,,;\t|")).writerows(rows)
    return out.getvalue().encode(errors="replace")


def _change_column(rows: list[list[str]], column: int, rng: random.Random) -> None:
    """Double, remove or fill one column."""
    header, name = rows[0], rows[0][column]
    action = rng.randrange(3)
    for one in rows:
        cell = one[column : column + 1]
        if action == 0:
            one.extend(cell or [""])
        elif action == 1:
            del one[column : column + 1]
        elif one is not header:
            one[column : column + 1] = [rng.choice(CELLS)]
    if action == 0:
        header[-1] = rng.choice((name, name.upper(), f" {name}"))


# Containers.


def _zip(content: bytes, rng: random.Random) -> bytes:
    """Damage one member of an archive, or let it grow to a gigabyte when unpacked."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(one, archive.read(one)) for one in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return content
    chosen = rng.randrange(len(members))
    grows = rng.random() < 0.05
    with zipfile.ZipFile(out, "w") as archive:
        for number, (info, data) in enumerate(members):
            if number != chosen:
                archive.writestr(info, data)
            elif grows:
                archive.writestr(info.filename, bytes(1 << 30), zipfile.ZIP_DEFLATED, 1)
            elif rng.random() < 0.9:
                archive.writestr(info, rng.choice(BYTES)(data, rng))
    return out.getvalue()


def _sqlite(content: bytes, rng: random.Random) -> bytes:
    """Change, remove or double one row of a database."""

    def change(connection: sqlite3.Connection) -> None:
        tables = [name for (name,) in connection.execute(ALL_TABLES)]
        filled = [one for one in tables if connection.execute(f'SELECT 1 FROM "{one}"').fetchone()]
        table = rng.choice(filled)
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        rowids = [row[0] for row in connection.execute(f'SELECT rowid FROM "{table}"')]
        column, rowid = rng.choice(columns), rng.choice(rowids)
        if rng.random() < 0.15:
            connection.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (rowid,))
            return
        value = rng.choice((None, b"\xff\xfe", *CELLS, *JSON_TEXTS, *NUMBERS[:8], 1e308, 0.5))
        (old,) = connection.execute(
            f'SELECT "{column}" FROM "{table}" WHERE rowid = ?', (rowid,)
        ).fetchone()
        if isinstance(old, str) and old.startswith(("{", "[")) and rng.random() < 0.8:
            value = rng.choice((_json_key, _json_token))(old.encode(), rng).decode(errors="replace")
        connection.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (value, rowid))

    return _in_database(content, change)


def _sqlite_schema(content: bytes, rng: random.Random) -> bytes:
    """Remove or rename a table or a column."""

    def change(connection: sqlite3.Connection) -> None:
        table = rng.choice([name for (name,) in connection.execute(ALL_TABLES)])
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        statement = rng.choice(
            (
                f'DROP TABLE "{table}"',
                f'DELETE FROM "{table}"',
                f'ALTER TABLE "{table}" RENAME TO other',
                f'ALTER TABLE "{table}" RENAME COLUMN "{rng.choice(columns)}" TO other',
            )
        )
        connection.execute(statement)

    return _in_database(content, change)


ALL_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def _in_database(content: bytes, change: Callable[[sqlite3.Connection], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        path.write_bytes(content)
        try:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA ignore_check_constraints = ON")
                for (trigger,) in connection.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                ).fetchall():
                    connection.execute(f'DROP TRIGGER "{trigger}"')
                change(connection)
                connection.commit()
        except (sqlite3.Error, OverflowError, UnicodeError, TypeError, IndexError):
            return content
        return path.read_bytes()


def _parquet(content: bytes, rng: random.Random) -> bytes:
    """Change the type of a column, double it, remove it, or its cells."""
    try:
        table = pq.read_table(io.BytesIO(content))
        return _write_parquet(_changed_table(table, rng))
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return content


def _changed_table(table: pa.Table, rng: random.Random) -> pa.Table:
    n, column = len(table), rng.randrange(table.num_columns)
    name = table.column_names[column]
    action = rng.randrange(6)
    if action == 0:
        return table.append_column(name, table.column(column))
    if action == 1:
        return table.remove_column(column)
    if action == 2:
        return table.slice(0, rng.randrange(n + 1))
    if action == 3:
        return pa.concat_tables([table, table])
    new = rng.choice(
        (
            pa.array([2**40] * n),
            pa.array([float("nan")] * n),
            pa.array([None] * n),
            pa.array([b"\xff\xfe"] * n),
            pa.array([True] * n),
            pa.array([[1.0, 2.0]] * n),
            pa.array([[1.0] * (row + 1) for row in range(n)]),
            pa.array([{"a": 1}] * n),
            pa.array(["x"] * n),
            pa.array(["x" * 70_000] * n),
            pa.array([0] * n, pa.timestamp("ns")),
            pa.array([1] * n, pa.decimal128(38)),
            pa.array(["x"] * n).dictionary_encode(),
        )
    )
    return table.set_column(column, rng.choice((name, name.upper())), new)


def _write_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """Damage the header of a safetensors file, with the right length before it."""
    (length,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
    header, data = content[8 : 8 + length], content[8 + length :]
    changed = rng.choice((_json_token, _json_key))(header, rng)
    return struct.pack("<Q", len(changed)) + changed + data


def _tiff(content: bytes, rng: random.Random) -> bytes:
    """Change type, count or value of one tag of a directory."""
    order = "<" if content[:2] == b"II" else ">"
    try:
        big = struct.unpack(f"{order}H", content[2:4])[0] == 43
        link, entry, count = ("Q", "HHQQ", "Q") if big else ("I", "HHII", "H")
        at = 8 if big else 4
        places: list[int] = []
        (offset,) = struct.unpack_from(f"{order}{link}", content, at)
        while offset and len(places) < 500:
            (n,) = struct.unpack_from(f"{order}{count}", content, offset)
            start, size = offset + struct.calcsize(count), struct.calcsize(f"={entry}")
            places += [start + size * number for number in range(n)]
            (offset,) = struct.unpack_from(f"{order}{link}", content, start + size * n)
        place = rng.choice(places)
        tag, kind, n, value = struct.unpack_from(f"{order}{entry}", content, place)
    except (struct.error, IndexError):
        return content
    limit = 1 << (64 if big else 32)
    which = rng.randrange(4)
    tag = rng.choice((tag ^ 1, 0, 65535, 34675)) if which == 0 else tag
    kind = rng.randrange(20) if which == 1 else kind
    n = rng.choice(NUMBERS) % limit if which == 2 else n
    value = rng.choice((*NUMBERS, value + 1)) % limit if which == 3 else value
    changed = bytearray(content)
    struct.pack_into(f"{order}{entry}", changed, place, tag, kind, n, value)
    return bytes(changed)
