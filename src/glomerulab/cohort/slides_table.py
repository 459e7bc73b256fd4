"""The slides table of a cohort, and the region file that belongs to each slide.

A slides table is a CSV with ``slide_path`` (relative to the table) and, where known, ``slide_id``,
``patient_id``, ``stain`` and ``mpp``. Further columns (scanner, site, ``synthetic``) are copied to
the crops. A single slide or a folder of slides is read as a table without patients.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from glomerulab.cohort.schema import STAINS
from glomerulab.errors import ManifestError, RegionError
from glomerulab.runtime.files import existing_path, stated_path
from glomerulab.runtime.names import safe_name
from glomerulab.runtime.tables import TableSchema, nfc, read_header, read_table
from glomerulab.slides.files import find_slides
from glomerulab.slides.regions.features import RegionOptions, SlideFrame
from glomerulab.slides.regions.files import REGION_SUFFIXES, read_region_file
from glomerulab.slides.regions.selection import Selection, drop_repeats, select_regions
from glomerulab.slides.scale import MAX_MPP, MIN_MPP
from glomerulab.slides.slide import Slide

__all__ = ["SlideEntry", "is_slides_table", "read_slides", "region_file_of", "regions_on"]

SLIDES_TABLE = TableSchema(
    "slides table",
    ("slide_path", "slide_id", "patient_id", "stain", "mpp"),
    required=("slide_path",),
    numbers=frozenset({"mpp"}),
    error=ManifestError,
    source="give a slide, a folder of slides, or a CSV with the column slide_path",
)


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
    other_names: tuple[str, ...] = ()
    """The name of the file, by which region files may call the slide, unless another has it too."""


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
    of_file = [_file_names(entry) for entry in entries]
    names = Counter(
        name
        for entry, others in zip(entries, of_file, strict=True)
        for name in {entry.slide_id, *others}
    )
    return [
        SlideEntry(
            *(one.path, one.slide_id, one.patient_id, one.stain, one.mpp, one.further),
            other_names=tuple([name for name in others if names[name] == 1]),
        )
        for one, others in zip(entries, of_file, strict=True)  # `replace` takes twice as long
    ]


def is_slides_table(path: Path) -> bool:
    """Whether a CSV lists slides, not the images of a manifest, by its header."""
    columns = read_header(path, name="table", error=ManifestError)
    found = SLIDES_TABLE.spelling(columns)
    if "slide_path" in found.values():
        exact = next(name for name, column in found.items() if column == "slide_path")
        is_exact = not TableSchema("", ("image_path",)).spelling([exact])
        return (
            is_exact or "image_id" not in TableSchema("", ("image_id",)).spelling(columns).values()
        )
    return False


def region_file_of(entry: SlideEntry, folder: Path) -> Path:
    """Return the region file of a slide in a folder of region files named after slides.

    Raises
    ------
    RegionError
        If there is none, or more than one.
    """
    own = (nfc(entry.slide_id), safe_name(entry.slide_id))
    names = dict.fromkeys((*own, *entry.other_names))
    candidates = [
        existing_path(folder / f"{name}{suffix}") for name in names for suffix in REGION_SUFFIXES
    ]
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


def regions_on(
    entry: SlideEntry, regions_path: Path, slide: Slide, options: RegionOptions
) -> Selection:
    """Read and select the regions of an open slide.

    Parameters
    ----------
    regions_path : Path
        One region file, or a folder with one named after each slide.

    Returns
    -------
    Selection
        May hold no region.
    """
    path = region_file_of(entry, regions_path) if regions_path.is_dir() else regions_path
    file = read_region_file(path)
    frame = SlideFrame.of(slide, options)
    if entry.mpp is not None:
        frame = replace(frame, mpp_xy=slide.mpp_xy)
    found = select_regions(
        file.features, frame, options, slide_id=entry.slide_id, slide_names=entry.other_names
    )
    drop_repeats(found, frame, labels_matter=False)
    found.notes[:0] = file.notes
    found.invalid = [replace(one, reason=f"{path.name}, {one.reason}") for one in found.invalid]
    return found


def _read_table(path: Path) -> list[SlideEntry]:
    table = read_table(path, SLIDES_TABLE)
    entries = [
        _entry(row, table.others, path, f"line {line}")
        for line, row in zip(table.lines, table.rows, strict=True)
    ]
    if not entries:
        raise ManifestError("the slides table has no rows", where=str(path))
    return entries


def _entry(row: dict[str, str], others: tuple[str, ...], table: Path, line: str) -> SlideEntry:
    if not row["slide_path"]:
        raise ManifestError(f"{line}: slide_path is empty", where=str(table))
    slide = stated_path(table.parent, row["slide_path"])
    stain = row.get("stain") or None
    if stain is not None and stain not in STAINS:
        raise ManifestError(
            f"{line}: unknown stain {stain!r} (known: {', '.join(STAINS)})", where=str(table)
        )
    return SlideEntry(
        slide,
        row.get("slide_id") or _slide_id(slide),
        row.get("patient_id") or None,
        stain,
        _mpp(row.get("mpp"), table, line),
        tuple([(name, row[name]) for name in others]),
    )


def _file_names(entry: SlideEntry) -> tuple[str, str]:
    return nfc(entry.path.stem), nfc(entry.path.name)


def _slide_id(slide: Path) -> str:
    """Return the default id of a slide, as `Slide.slide_id` does."""
    return nfc(slide.name if slide.is_dir() else slide.stem)


def _mpp(text: str | None, table: Path, line: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not MIN_MPP <= value <= MAX_MPP:
        raise ManifestError(
            f"{line}: mpp must be the micrometres per pixel of the slide, from {MIN_MPP:g} to "
            f"{MAX_MPP:g}, got {text!r}",
            where=str(table),
        )
    return value
