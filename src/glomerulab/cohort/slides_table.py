"""The slides table of a cohort, and the region file that belongs to each slide.

A slides table is a CSV with ``slide_path`` (relative to the table) and, where known, ``slide_id``,
``patient_id``, ``stain`` and ``mpp``. Further columns (scanner, site, ``synthetic``) are copied to
the crops. A single slide or a folder of slides is read as a table without patients.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cohort.schema import STAINS
from glomerulab.errors import ManifestError, RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.files import find_slides
from glomerulab.slides.regions.files import REGION_SUFFIXES, read_regions

__all__ = ["SlideEntry", "read_slides", "region_file_of", "regions_on"]

OWN_COLUMNS = {"slide_path", "slide_id", "patient_id", "stain", "mpp"}


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One row of a slides table."""

    path: Path
    slide_id: str
    patient_id: str | None = None
    stain: str | None = None
    mpp: float | None = None
    """Micrometres per pixel of level 0; overrides the file's own value."""
    further: tuple[tuple[str, str], ...] = ()
    """Name and cell of every other column."""


def read_slides(path: Path) -> list[SlideEntry]:
    """Read a slide, a folder of slides, or a slides table ending in ``.csv``.

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
        entries = [SlideEntry(slide, _slide_id(slide)) for slide in find_slides(path)]
    first_of: dict[str, SlideEntry] = {}
    for entry in entries:
        first = first_of.setdefault(entry.slide_id, entry)
        if first is not entry:
            raise ManifestError(
                f"{first.path.name} and {entry.path.name} have the same slide id "
                f"{entry.slide_id!r}; give each its own in a slides table (slide_path, slide_id)",
                where=str(path),
            )
    return entries


def region_file_of(entry: SlideEntry, folder: Path) -> Path:
    """Return the region file of a slide in a folder of region files named after slides.

    Raises
    ------
    RegionError
        If there is none, or more than one.
    """
    names = dict.fromkeys((entry.slide_id, entry.path.stem, entry.path.name))
    candidates = [folder / f"{name}{suffix}" for name in names for suffix in REGION_SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise RegionError(
            f"there is no region file for slide {entry.slide_id!r}; name it "
            f"{entry.slide_id}.geojson, .json, .xml or .csv",
            where=str(folder),
        )
    if len(found) > 1:
        several = " and ".join(path.name for path in found)
        raise RegionError(
            f"{several} are both for slide {entry.slide_id!r}; keep one of them",
            where=str(folder),
        )
    return found[0]


def regions_on(entry: SlideEntry, regions_path: Path, *, bounds_offset: Point) -> list[Region]:
    """Read the regions of a slide.

    Parameters
    ----------
    regions_path : Path
        One region file, or a folder with one named after each slide.
    bounds_offset : tuple of float
        Of the slide; added to QuPath's coordinates.

    Returns
    -------
    list of Region
        May be empty.
    """
    path = region_file_of(entry, regions_path) if regions_path.is_dir() else regions_path
    found = read_regions(path, bounds_offset=bounds_offset)
    return [region for region in found if region.slide_id in {None, entry.slide_id}]


def _read_table(path: Path) -> list[SlideEntry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text), strict=True)
        reader.fieldnames = _header(reader.fieldnames or (), path)
        entries = [_entry(row, path, f"line {reader.line_num}") for row in reader]
    except OSError as error:
        raise ManifestError(
            f"the slides table cannot be read: {error.strerror}", where=str(path)
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            f"the slides table is not a CSV in UTF-8: {error}", where=str(path)
        ) from error
    if not entries:
        raise ManifestError("the slides table has no rows", where=str(path))
    return entries


def _header(header: Sequence[str], path: Path) -> list[str]:
    """Strip and check the column names; several columns may have an empty name."""
    columns = [name.strip() for name in header]
    if "slide_path" not in columns:
        raise ManifestError("the slides table has no column slide_path", where=str(path))
    for name in columns:
        if name and columns.count(name) > 1:
            raise ManifestError(f"the slides table has the column {name!r} twice", where=str(path))
    return columns


def _entry(row: dict[str, str | None], table: Path, line: str) -> SlideEntry:
    if None in row:  # DictReader's key for cells beyond the header
        raise ManifestError(f"{line} has more fields than the header", where=str(table))
    cells = {name: (value or "").strip() for name, value in row.items()}
    if not cells["slide_path"]:
        raise ManifestError(f"{line}: slide_path is empty", where=str(table))
    slide = table.parent / cells["slide_path"]
    stain = cells.get("stain") or None
    if stain is not None and stain not in STAINS:
        raise ManifestError(
            f"{line}: unknown stain {stain!r} (known: {', '.join(STAINS)})", where=str(table)
        )
    return SlideEntry(
        slide,
        cells.get("slide_id") or _slide_id(slide),
        cells.get("patient_id") or None,
        stain,
        _mpp(cells.get("mpp"), table, line),
        tuple((name, cell) for name, cell in cells.items() if name and name not in OWN_COLUMNS),
    )


def _slide_id(slide: Path) -> str:
    """Return the default id of a slide, as `Slide.slide_id` does."""
    return slide.name if slide.is_dir() else slide.stem


def _mpp(text: str | None, table: Path, line: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ManifestError(f"{line}: mpp {text!r} is not a positive number", where=str(table))
    return value
