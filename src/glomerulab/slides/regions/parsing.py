"""What the region formats share: safe loading of text, coordinates and labels."""

import gzip
import itertools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.tables import nfc, read_text
from glomerulab.slides.files import SLIDE_SUFFIXES

MAX_BYTES = 250_000_000
"""Of a compressed file: a thousand times what QuPath writes for a slide, and no bomb."""
LABEL_SEPARATOR = ": "
"""Between the parts of a QuPath class name with several labels; also used in XML and COCO."""


@dataclass(frozen=True, slots=True)
class InvalidRegion:
    """A region that bounds no area, in a well-formed file whose other regions can be used."""

    region_id: str
    slide_id: str | None
    reason: str
    """Names the feature of the file."""


def load_bytes(path: Path) -> bytes:
    """Read a file; one whose name ends in ``.gz`` is decompressed, up to `MAX_BYTES`."""
    try:
        if path.suffix.lower() != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            # All at once would be allocated first.
            pieces = iter(lambda: stream.read(1 << 20), b"")
            content = b"".join(itertools.islice(pieces, MAX_BYTES // (1 << 20) + 2))
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    if len(content) > MAX_BYTES:
        raise RegionError(
            f"the region file is larger than {MAX_BYTES / 1e6:.0f} MB when decompressed; give it "
            "uncompressed",
            where=str(path),
        )
    return content


def load_text(path: Path, *, is_table: bool = False) -> str:
    """Read a UTF-8 file, or a table in any encoding; refuse an empty one."""
    try:
        if is_table and path.suffix.lower() != ".gz":
            text = read_text(path)
        else:
            text = load_bytes(path).decode("utf-8-sig")
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
        root: Element = fromstring(load_bytes(path), forbid_dtd=True)
    except DefusedXmlException as error:
        raise RegionError(
            "the region file has a document type or entities, which are refused; save it without",
            where=str(path),
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        raise RegionError(f"the region file is not valid XML: {error}", where=str(path)) from error
    return root


def _unreadable(path: Path, error: Exception) -> RegionError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RegionError(
            "there is no such region file; give the file that QuPath, ImageScope or ASAP exported",
            where=str(path),
        )
    reason = getattr(error, "strerror", None) or str(error)
    return RegionError(f"the region file cannot be read: {reason}", where=str(path))


def parse_point(x: object, y: object, *, feature: str) -> Point:
    """Return one vertex from two numbers or texts of numbers."""
    is_switch = isinstance(x, bool) or isinstance(y, bool)
    if isinstance(x, str | int | float) and isinstance(y, str | int | float) and not is_switch:
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
        raise RegionError(
            f"{feature}: the width and height of a box must be above 0, got {across:g} x {down:g}"
        )
    right, lower = left + across, upper + down
    return [(left, upper), (right, upper), (right, lower), (left, lower)]


def split_labels(name: str | None) -> tuple[str, ...]:
    """Return the labels that a class name joins.

    Examples
    --------
    >>> split_labels("Glomerulus: Crescent")
    ('Glomerulus', 'Crescent')
    """
    parts = (part.strip() for part in (name or "").split(LABEL_SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def slide_name(stated: str) -> str | None:
    """Return the slide that a file names by an id or a file name of any system, in NFC.

    Examples
    --------
    >>> slide_name("scans/s1.svs"), slide_name("s1.2"), slide_name("")
    ('s1', 's1.2', None)
    """
    name = nfc(PureWindowsPath(PurePosixPath(stated).name).name)
    suffix = PurePosixPath(name).suffix.lower()
    return (name[: -len(suffix)] if suffix in SLIDE_SUFFIXES else name) or None


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
