"""What the region formats share: safe loading of text, coordinates, labels and unique ids."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.tables import nfc, read_text

LABEL_SEPARATOR = ": "
"""Between the parts of a QuPath class name with several labels; also used in XML and COCO."""


@dataclass(frozen=True, slots=True)
class InvalidRegion:
    """A region that bounds no area, in a well-formed file whose other regions can be used."""

    region_id: str
    slide_id: str | None
    reason: str
    """Names the feature of the file."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A feature that is not a region, such as a point or a ruler."""

    reason: str


Parsed = Region | InvalidRegion | Skipped


def load_text(path: Path, *, is_table: bool = False) -> str:
    """Read a UTF-8 file, or a table in any encoding; refuse an empty one."""
    try:
        text = read_text(path) if is_table else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise RegionError(
            "the region file is not UTF-8 text; save it as UTF-8", where=str(path)
        ) from error
    if not text.strip():
        raise RegionError("the region file is empty", where=str(path))
    return text


def load_json(path: Path) -> Any:  # noqa: ANN401 - JSON is anything until it is checked
    """Read a JSON file; errors give line and column."""
    try:
        return json.loads(load_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5000 digits
        raise RegionError(f"the region file is not valid JSON: {error}", where=str(path)) from error


def load_xml(path: Path) -> Element:
    """Read an XML file; refuse document types and entities, which can read other files."""
    try:
        # Bytes, not text: the XML declaration may name another encoding.
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    except DefusedXmlException as error:
        raise RegionError(
            "the region file has a document type or entities, which are refused; save it without",
            where=str(path),
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        raise RegionError(f"the region file is not valid XML: {error}", where=str(path)) from error
    return root


def _unreadable(path: Path, error: OSError) -> RegionError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RegionError(
            "there is no such region file; give the file that QuPath, ImageScope or ASAP exported",
            where=str(path),
        )
    reason = error.strerror or str(error)
    return RegionError(f"the region file cannot be read: {reason}", where=str(path))


def parse_point(x: object, y: object, *, feature: str) -> Point:
    """Return one vertex from two numbers or texts of numbers."""
    if isinstance(x, str | int | float) and isinstance(y, str | int | float):
        try:
            return float(x), float(y)
        except (ValueError, OverflowError):
            pass
    raise RegionError(f"{feature}: ({x!r}, {y!r}) is not a pair of numbers")


def parse_box(x: object, y: object, width: object, height: object, *, feature: str) -> list[Point]:
    """Return the corners of a box, clockwise on screen from the upper left."""
    left, upper = parse_point(x, y, feature=feature)
    across, down = parse_point(width, height, feature=feature)
    if across <= 0 or down <= 0:  # a size that is NaN makes an InvalidRegion later
        raise RegionError(f"{feature}: the width and height of a box must be above 0")
    right, lower = left + across, upper + down
    return [(left, upper), (right, upper), (right, lower), (left, lower)]


def make_region(
    region_id: str,
    points: Sequence[Point],
    labels: Sequence[str] = (),
    *,
    feature: str,
    slide_id: str | None = None,
) -> Region | InvalidRegion:
    """Return a region from a ring of a file, closed or not.

    It is invalid if the ring has fewer than three points or a coordinate that is not finite.
    """
    ring = list(points)
    if len(ring) > 3 and ring[0] == ring[-1]:
        ring.pop()
    region_id, slide_id = nfc(region_id), None if slide_id is None else nfc(slide_id)
    try:
        return Region(region_id, tuple(ring), tuple(map(nfc, labels)), slide_id)
    except ValueError as error:
        return InvalidRegion(region_id, slide_id, f"{feature}: {error}")


def unique_names(names: Sequence[str | None], fallbacks: Sequence[str]) -> list[str]:
    """Return the name of each feature where it is unique in the file, else its fallback.

    Examples
    --------
    >>> unique_names(["glom", "glom", "g7", None], ["1", "2", "3", "4"])
    ['1', '2', 'g7', '4']
    """
    counts = Counter(names)
    return [
        name if name and counts[name] == 1 else fallback
        for name, fallback in zip(names, fallbacks, strict=True)
    ]


def split_labels(name: str | None) -> tuple[str, ...]:
    """Return the labels that a class name joins.

    Examples
    --------
    >>> split_labels("Glomerulus: Crescent")
    ('Glomerulus', 'Crescent')
    """
    parts = (part.strip() for part in (name or "").split(LABEL_SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def join_labels(region: Region) -> str:
    """Return the one class name that `split_labels` takes apart to the region's labels."""
    name = LABEL_SEPARATOR.join(region.labels)
    if split_labels(name) != region.labels:
        raise RegionError(
            f"region {region.region_id!r}: its labels {', '.join(map(repr, region.labels))} would "
            "be read back differently from this format; write GeoJSON"
        )
    return name


def format_number(value: float) -> str:
    """Return a coordinate as text that reads back equal, without a needless fraction."""
    value = float(value)  # some callers pass integers
    return str(int(value)) if value.is_integer() else repr(value)
