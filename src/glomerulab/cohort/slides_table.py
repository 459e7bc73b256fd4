"""The slides of a cohort: whose they are and how they are stained.

A slides table is a CSV with ``slide_path`` (relative to the table) and, where known, ``slide_id``,
``patient_id``, ``stain`` and ``mpp``. Its other columns (scanner, site, ``synthetic``) go with the
crops. One slide or a folder of slides stands for a table without patients.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cohort.schema import STAINS
from glomerulab.errors import ManifestError
from glomerulab.slides.find import find_slides

__all__ = ["SlideEntry", "read_slides"]

OWN_COLUMNS = {"slide_path", "slide_id", "patient_id", "stain", "mpp"}


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One slide of a cohort, as its table tells."""

    path: Path
    slide_id: str
    patient_id: str | None = None
    stain: str | None = None
    mpp: float | None = None
    """Micrometres per pixel of level 0, in place of what the file says."""
    further: tuple[tuple[str, str], ...] = ()
    """Name and cell of every other column."""


def read_slides(path: Path) -> list[SlideEntry]:
    """Return the slides that a path stands for.

    Parameters
    ----------
    path : Path
        A slide, a folder of slides, or a slides table ending in ``.csv``.

    Returns
    -------
    list of SlideEntry
        At least one; slide ids are unique.

    Raises
    ------
    ManifestError
        If the table is malformed or two slides share an id; the message names the line.
    """
    if path.suffix.lower() == ".csv" and not path.is_dir():
        entries = _read_table(path)
    else:
        slides = find_slides(path)
        entries = [SlideEntry(slide, _name(slide)) for slide in slides]
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        first = first_of.setdefault(entry.slide_id, entry)
        if first is not entry:
            raise ManifestError(
                f"slide id {entry.slide_id!r} stands for {first.path.name} and {entry.path.name}; "
                "give each its own in a slides table (slide_path, slide_id)",
                where=str(path),
            )
    return entries


def _read_table(path: Path) -> list[SlideEntry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), strict=True)
        reader.fieldnames = _columns(reader.fieldnames or (), path)
        entries = [_entry(row, path, f"line {reader.line_num}") for row in reader]
    except OSError as error:
        raise ManifestError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"is not a CSV in UTF-8: {error}", where=str(path)) from error
    if not entries:
        raise ManifestError("this slides table has no rows", where=str(path))
    return entries


def _columns(header: Sequence[str], path: Path) -> list[str]:
    """Return the names without outer blanks; a column without a name is none of ours."""
    columns = [name.strip() for name in header]
    if "slide_path" not in columns:
        raise ManifestError("a slides table needs the column slide_path", where=str(path))
    for name in columns:
        if name and columns.count(name) > 1:
            raise ManifestError(f"column {name!r} is given twice", where=str(path))
    return columns


def _entry(row: dict[str, str | None], table: Path, where: str) -> SlideEntry:
    if None in row:  # DictReader's place for what is beyond the header
        raise ManifestError(f"{where} has more fields than the header", where=str(table))
    cells = {name: (value or "").strip() for name, value in row.items()}
    if not cells["slide_path"]:
        raise ManifestError(f"{where}: slide_path is empty", where=str(table))
    slide = table.parent / cells["slide_path"]
    stain = cells.get("stain") or None
    if stain is not None and stain not in STAINS:
        raise ManifestError(
            f"{where}: stain {stain!r} is none of {', '.join(STAINS)}", where=str(table)
        )
    return SlideEntry(
        slide,
        cells.get("slide_id") or _name(slide),
        cells.get("patient_id") or None,
        stain,
        _mpp(cells.get("mpp"), table, where),
        tuple((name, cell) for name, cell in cells.items() if name and name not in OWN_COLUMNS),
    )


def _name(slide: Path) -> str:
    """Name a slide as `Slide.slide_id` does."""
    return slide.name if slide.is_dir() else slide.stem


def _mpp(text: str | None, table: Path, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ManifestError(f"{where}: mpp {text!r} is not a positive number", where=str(table))
    return value
