"""Tables as people have them, read as text under one set of column names.

Separator, encoding, line ends and the spelling of the header are recognised; text becomes NFC. What
is not recognised is named in a warning or an error. One `TableSchema` per table serves its reader
and its writer.
"""

import csv
import difflib
import functools
import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glomerulab.errors import GlomerulabError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "BOX_COLUMNS",
    "SPELLINGS",
    "Table",
    "TableSchema",
    "decimal_point",
    "is_plain_text",
    "nfc",
    "nfc_frame",
    "not_a_formula",
    "parse_table",
    "read_cells",
    "read_header",
    "read_table",
    "read_text",
    "without_formulas",
]

BOX_COLUMNS = ("x", "y", "width", "height")
"""A place on a slide: all of them are set, or none."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    "image_id": ("id", "crop_id"),
    "image_path": (
        "path",
        "image",
        "image_file",
        "img",
        "img_path",
        "file",
        "file_path",
        "filename",
    ),
    "slide_path": ("path", "slide_file", "wsi", "wsi_path", "file", "file_path", "filename"),
    "patient_id": (
        "patient",
        "patient_no",
        "patient_number",
        "case",
        "case_id",
        "subject_id",
        "pid",
    ),
    "slide_id": ("slide", "slide_name", "wsi_id"),
    "region_id": ("region", "id", "name"),
    "stain": ("staining", "stain_type"),
    "mpp": (
        "um_per_px",
        "um_per_pixel",
        "µm/px",
        "µm/pixel",
        "microns_per_pixel",
        "micrometers_per_pixel",
        "micrometres_per_pixel",
        "pixel_size_um",
    ),
    "x": ("left", "x_min"),
    "y": ("top", "y_min"),
    "width": ("w",),
    "height": ("h",),
    "split": ("part", "subset"),
    "parent_id": ("parent",),
    "labels": ("label", "class", "class_name", "classification", "category"),
    "polygon": ("outline", "points"),
    "other_image_id": ("other_image", "other_id"),
}
"""Names of columns to further spellings; case, blanks, hyphens and underscores never matter."""

FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")
SEPARATORS = (",", ";", "\t", "|")
BLANK_AROUND = r"\A[\s\v\x1c-\x1f]|[\s\v\x1c-\x1f]\z"
MAX_CELL = 1 << 26
"""Characters; the outline of a region can exceed the limit of the csv module."""
COMMON_GB18030 = range(0xB0, 0xD8)
"""First bytes of the common Chinese characters; accented Latin letters lie above."""

Row = tuple[int, list[str]]
"""Line of the file, and its cells."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableSchema:
    """The columns of a kind of table."""

    name: str
    """As messages name it, such as ``manifest``."""
    columns: tuple[str, ...]
    required: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()
    """Columns in which a decimal comma is read as a point where the separator is not a comma."""
    spellings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further spellings, beside `SPELLINGS`."""
    further: frozenset[str] = frozenset()
    """Other columns that this package writes."""
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to do with columns that people have and the table does not."""
    keeps_others: bool = True
    """Whether other columns are kept; a warning names those that look like a misspelt name."""
    refuses_long_rows: bool = True
    """Whether a row with more cells than the header is an error; else `Table.long_lines` has it."""
    error: type[GlomerulabError] = GlomerulabError
    way_out: str = ""
    """End of the message about a missing column."""
    source: str = "check its path"
    """End of the message about a missing file: which file to give."""

    def spelling(self, header: Sequence[str]) -> dict[str, str]:
        """Return the name of the schema of each recognised column of a header.

        The exact name is preferred to another spelling of it, which then counts as a column of its
        own.
        """
        keys = {name: _key(name) for name in header}
        exact = {_key(name): name for name in self.columns}
        found = {name: exact[key] for name, key in keys.items() if key in exact}
        for column in self.columns:
            if column in found.values():
                continue
            further = (*SPELLINGS.get(column, ()), *self.spellings.get(column, ()))
            for spelling in further:
                fitting = [n for n in keys if keys[n] == _key(spelling) and n not in found]
                if fitting:
                    found[fitting[0]] = column
                    break
        return found

    def meant(self, name: str) -> str | None:
        """Return the column that an unknown name probably stands for."""
        known = {_key(one): column for column in self.columns for one in self._names(column)}
        close = difflib.get_close_matches(_key(name), known, n=1, cutoff=0.8)
        return known[close[0]] if close else None

    def _names(self, column: str) -> tuple[str, ...]:
        return (column, *SPELLINGS.get(column, ()), *self.spellings.get(column, ()))


@dataclass(frozen=True)
class Table:
    """The cells of a table: stripped text in NFC, empty where nothing was given."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    """Without the blank ones."""
    lines: tuple[int, ...]
    """Line of the file on which each row ends."""
    others: tuple[str, ...] = ()
    """Columns that the schema does not have, under their own names."""
    separator: str = ","
    long_lines: frozenset[int] = frozenset()
    """Lines with more cells than the header."""

    def frame(self) -> "pd.DataFrame":
        """Return the cells as strings, the empty ones as missing.

        Blank rows in between are kept, so that row 0 is line 2.
        """
        import pandas as pd

        at = dict(zip(self.lines, self.rows, strict=True))
        is_by_line = len(at) == len(self.rows) and all(line >= 2 for line in at)
        rows: Iterable[dict[str, str]] = self.rows
        if is_by_line and self.lines and self.lines[-1] - 1 != len(self.rows):
            rows = [at.get(line, {}) for line in range(2, self.lines[-1] + 1)]
        cells = {
            name: pd.array([row.get(name) or pd.NA for row in rows], dtype="string")
            for name in self.columns
        }
        return pd.DataFrame(cells, columns=list(self.columns))


def read_table(path: Path, schema: TableSchema) -> Table:
    """Read a CSV.

    Parameters
    ----------
    path : Path
        UTF-8, UTF-16, GB18030 or Windows-1252; separated by commas, semicolons, tabs or bars.

    Raises
    ------
    GlomerulabError
        Of the class that the schema states: if the file cannot be read, has no header, has two
        columns of one name, lacks a required one, or a row has more cells than the header.
    """
    return parse_table(_text_of(path, schema), schema, where=str(path))


def _text_of(path: Path, schema: TableSchema) -> str:
    try:
        return read_text(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise schema.error(
            f"there is no such {schema.name}; {schema.source}", where=str(path)
        ) from error
    except OSError as error:
        raise schema.error(
            f"the {schema.name} cannot be read ({error.strerror or error}); check that it is a "
            "file and its permissions",
            where=str(path),
        ) from error
    except UnicodeDecodeError as error:
        raise schema.error(
            f"the {schema.name} is not text in UTF-8; save it as CSV UTF-8", where=str(path)
        ) from error


def parse_table(text: str, schema: TableSchema, *, where: str | None = None) -> Table:
    """Read a table from its text; see `read_table`."""
    rows, separator = _rows(text, schema, where)
    _, header = _first(rows, schema, where)
    return _named(header, list(rows), separator, schema, where)


def read_cells(path: Path, *, name: str, error: type[GlomerulabError]) -> Table:
    """Read a CSV under the names of its own header."""
    return read_table(path, TableSchema(name, (), error=error))


def read_header(path: Path, *, name: str, error: type[GlomerulabError]) -> list[str]:
    """Read the names of the columns of a CSV, and no further row."""
    schema = TableSchema(name, (), error=error)
    rows, _ = _rows(_text_of(path, schema), schema, str(path))
    _, header = _first(rows, schema, str(path))
    return [column for column in header if column]


def read_text(path: Path) -> str:
    """Return the text of a file, with a warning where it is not Unicode.

    Raises
    ------
    OSError
        If it cannot be read.
    UnicodeDecodeError
        If its encoding is not recognised.
    """
    content = path.read_bytes()
    encoding = _encoding(content)
    text = content.decode(encoding)
    if encoding in {"gb18030", "cp1252"}:
        sample = next(iter(re.findall(r"\w*[^\x00-\x7f]\w*", text)), "")
        _warn(
            f"{path}: the table is not UTF-8; it was read as {encoding}, with words such as "
            f"{sample!r}; save it as CSV UTF-8 if they are wrong"
        )
    return text


def nfc(text: str) -> str:
    """Return a text with composed characters, as most systems write it."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def nfc_frame(frame: "pd.DataFrame", schema: TableSchema, *, where: str) -> "pd.DataFrame":
    """Return a data frame under the names of a schema, its text in NFC."""
    header = [str(name) for name in frame]
    _check_header(header, schema, where)
    found = schema.spelling(header)
    _check_required(header, found, schema, where)
    frame = frame.set_axis([found.get(name, nfc(name)) for name in header], axis="columns")
    texts = {
        str(name): frame[name].map(nfc, na_action="ignore")
        for name in frame
        if frame[name].dtype.kind not in "iufb"
        and not is_plain_text(frame[name])
        and any(isinstance(cell, str) for cell in frame[name])
    }
    return frame.assign(**texts)


def is_plain_text(column: "pd.Series[Any]") -> bool:
    """Whether a column holds text in ASCII without blanks around, which is in NFC and stripped."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    if not isinstance(column.dtype, pd.StringDtype) or column.dtype.storage != "pyarrow":
        return False
    cells = pa.array(column.array, from_pandas=True)
    is_ascii = pc.all(pc.string_is_ascii(cells), min_count=0).as_py()
    return bool(is_ascii) and not pc.any(pc.match_substring_regex(cells, BLANK_AROUND)).as_py()


def _encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    head = content[:1000]
    if head[1::2].count(0) > len(head) // 4:
        return "utf-16-le"
    if head[::2].count(0) > len(head) // 4:
        return "utf-16-be"
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        runs = re.findall(rb"[\x80-\xff]+", content)
        is_paired = all(len(run) % 2 == 0 for run in runs)
        if is_paired and any(byte in COMMON_GB18030 for run in runs for byte in run[::2]):
            return "gb18030"
        if b"\x00" in content:
            raise error from None
        return "cp1252"
    return "utf-8-sig"


def _rows(text: str, schema: TableSchema, where: str | None) -> tuple[Iterator[Row], str]:
    """Return an iterator over (line, cells) of each row that is not blank, and the separator."""
    csv.field_size_limit(MAX_CELL)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    stated = re.match(r'"?sep=(.)"?[^\n]*\n', text, re.IGNORECASE)
    body = text[stated.end() :] if stated else text
    separator = stated[1] if stated else _separator(body, schema)
    reader = csv.reader(io.StringIO(body), delimiter=separator, strict=True)
    shift = 1 if stated else 0
    is_ascii = body.isascii()

    def rows() -> Iterator[Row]:
        try:
            for row in reader:
                cells = list(map(str.strip, row))
                if any(cells):
                    yield reader.line_num + shift, cells if is_ascii else list(map(nfc, cells))
        except csv.Error as error:
            raise schema.error(
                f"the {schema.name} is not valid CSV: {error} (line {reader.line_num + shift})",
                where=where,
            ) from error

    return rows(), separator


def _first(rows: Iterator[Row], schema: TableSchema, where: str | None) -> Row:
    first = next(rows, None)
    if first is None:
        raise schema.error(f"the {schema.name} is empty", where=where)
    return first


def _separator(text: str, schema: TableSchema) -> str:
    """Return the separator by which most columns are recognised, or else most are found."""

    def score(separator: str) -> tuple[int, int]:
        try:
            reader = csv.reader(io.StringIO(text), delimiter=separator)
            header = next(row for row in reader if any(cell.strip() for cell in row))
        except (csv.Error, StopIteration):
            return 0, 0
        return len(schema.spelling([cell.strip() for cell in header])), len(header)

    return max(SEPARATORS, key=score)


def _named(
    header: list[str], body: list[Row], separator: str, schema: TableSchema, where: str | None
) -> Table:
    width = len(header)
    long_lines = frozenset(line for line, row in body if any(row[width:]))
    for line, row in body:
        if line in long_lines and schema.refuses_long_rows:
            raise schema.error(
                f"line {line} has more fields than the header ({len(row)}, not {width}); put "
                "quotes around a cell that holds the separator",
                where=where,
            )
    kept = [place for place, name in enumerate(header) if name]
    nameless = [
        place
        for place, name in enumerate(header)
        if not name and any(place < len(row) and row[place] for _, row in body)
    ]
    if nameless and not _is_numbering(nameless, body):
        numbers = ", ".join(str(place + 1) for place in nameless)
        _warn(
            f"{where}: the {schema.name} has content in columns without a name, which are not "
            f"read (number {numbers})"
        )
    names = [header[place] for place in kept]
    _check_header(names, schema, where)
    found = schema.spelling(names)
    others = tuple(name for name in names if name not in found)
    _check_required(names, found, schema, where)
    _tell_others(others, schema, where)
    columns = tuple(found.get(name, name) for name in names)
    with_comma = schema.numbers.intersection(columns) if separator != "," else ()
    rows = []
    for _, row in body:
        padded = row if len(row) == width else row[:width] + [""] * (width - len(row))
        values = padded if len(kept) == width else [padded[place] for place in kept]
        named = dict(zip(columns, values, strict=True))
        for name in with_comma:
            named[name] = decimal_point(named[name], separator)
        rows.append(named)
    lines = tuple(line for line, _ in body)
    return Table(columns, tuple(rows), lines, others, separator, long_lines)


def _is_numbering(places: list[int], body: list[Row]) -> bool:
    """Whether a nameless column only counts the rows, as pandas writes it."""
    if places != [0]:
        return False
    column = [row[0] for _, row in body]
    return any(column == [str(n + start) for n in range(len(column))] for start in (0, 1))


def _check_header(names: Sequence[str], schema: TableSchema, where: str | None) -> None:
    keys = [_key(name) for name in names]
    known = {_key(name) for name in schema.columns}
    twice = [
        name
        for name, key in zip(names, keys, strict=True)
        if names.count(name) > 1 or (key in known and keys.count(key) > 1)
    ]
    if twice:
        raise schema.error(
            f"the {schema.name} has two columns {' and '.join(map(repr, dict.fromkeys(twice)))}; "
            "rename or remove one",
            where=where,
        )


def _check_required(
    names: Sequence[str], found: Mapping[str, str], schema: TableSchema, where: str | None
) -> None:
    missing = [name for name in schema.required if name not in found.values()]
    if not missing:
        return
    further = {name: SPELLINGS.get(name, ()) for name in missing}
    spellings = "; ".join(
        f"{name} may be called {', '.join(others)}" for name, others in further.items() if others
    )
    raise schema.error(
        f"the {schema.name} lacks the columns {', '.join(missing)}; it has "
        f"{', '.join(map(repr, names))}"
        + "".join(f"; {x}" for x in (spellings, schema.way_out) if x),
        where=where,
    )


def _tell_others(others: Sequence[str], schema: TableSchema, where: str | None) -> None:
    hints = {_key(name): hint for name, hint in schema.hints.items()}
    named = []
    for name in others:
        meant = None if name in schema.further else schema.meant(name)
        hint = hints.get(_key(name)) or (None if meant is None else f"did you mean {meant}?")
        if hint is not None:
            named.append(f"{name!r} ({hint})")
        elif not schema.keeps_others and name not in schema.further:
            named.append(repr(name))
    if named:
        _warn(
            f"{where or schema.name}: the {schema.name} does not know the columns "
            f"{', '.join(named)}; their cells are not used"
        )


@functools.lru_cache(maxsize=1000)
def _warn(message: str) -> None:
    """Log a warning, once per process: a command may read a table several times."""
    logger.warning("%s", message)


def decimal_point(cell: str, separator: str) -> str:
    """Return a number with a decimal comma as one with a point; commas may be the separator."""
    if separator != "," and re.fullmatch(r"[+-]?\d*,\d+", cell):
        return cell.replace(",", ".")
    return cell


def _key(name: str) -> str:
    """Return what two spellings of a column have in common."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()


def not_a_formula(cell: object) -> object:
    """Return a cell for a table that people open: a text that a spreadsheet would run is quoted."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell


def without_formulas(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return a table for people with every text as `not_a_formula`; numbers stay numbers."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    return table.assign(**{str(name): table[name].map(not_a_formula) for name in texts})
