"""What the region formats share: loading text safely, numbers, unique ids.

Every failure is a `RegionError` that names the file and the feature.
"""

import json
import logging
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

__all__ = [
    "LABEL_SEPARATOR",
    "BrokenRegion",
    "join_labels",
    "leave_out",
    "load_json",
    "load_text",
    "load_xml",
    "make_region",
    "parse_point",
    "shown_number",
    "split_labels",
    "unique_names",
]

LABEL_SEPARATOR = ": "
"""Between the parts of a QuPath class name with several labels, and of ours in XML and COCO."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BrokenRegion:
    """A region that bounds no area, in a file that is well formed: the other regions stand."""

    region_id: str
    slide_id: str | None
    reason: str
    """Names the feature of the file."""


def load_text(path: Path) -> str:
    """Read a text file.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark.

    Returns
    -------
    str

    Raises
    ------
    RegionError
        If it cannot be read, is empty, or is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise RegionError(f"cannot be read: {reason}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RegionError("is not UTF-8 text; save it as UTF-8", where=str(path)) from error
    if not text.strip():
        raise RegionError("the file is empty", where=str(path))
    return text


def load_json(path: Path) -> Any:  # noqa: ANN401 - JSON is anything until it is checked
    """Read a JSON file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    object

    Raises
    ------
    RegionError
        If it is not JSON; the message gives line and column.
    """
    try:
        return json.loads(load_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5000 digits
        raise RegionError(f"not valid JSON: {error}", where=str(path)) from error


def load_xml(path: Path) -> Element:
    """Read an XML file without entities, external references or document types.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Element
        The root.

    Raises
    ------
    RegionError
        If it is not XML, or uses what could read other files or fill the memory.
    """
    try:
        # Bytes, not text: the XML declaration may name another encoding.
        root: Element = fromstring(path.read_bytes(), forbid_dtd=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RegionError(f"cannot be read: {reason}", where=str(path)) from error
    except DefusedXmlException as error:
        raise RegionError(
            "has a document type or entities, which are refused", where=str(path)
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        raise RegionError(f"not valid XML: {error}", where=str(path)) from error
    return root


def parse_point(x: object, y: object, *, path: Path, feature: str) -> Point:
    """Read one vertex.

    Parameters
    ----------
    x, y : object
        Numbers, or text that is one.
    path : Path
        For the error.
    feature : str
        For the error.

    Returns
    -------
    tuple of float

    Raises
    ------
    RegionError
        If either is no number.
    """
    if isinstance(x, str | int | float) and isinstance(y, str | int | float):
        try:
            return float(x), float(y)
        except (ValueError, OverflowError):
            pass
    raise RegionError(f"{feature}: ({x!r}, {y!r}) is not a pair of numbers", where=str(path))


def make_region(
    region_id: str,
    points: Sequence[Point],
    labels: Sequence[str] = (),
    *,
    feature: str,
    slide_id: str | None = None,
) -> Region | BrokenRegion:
    """Make a region from a ring of a file, closed or not.

    Parameters
    ----------
    region_id : str
    points : sequence of tuple of float
    labels : sequence of str, default ()
    feature : str
        For the reason.
    slide_id : str, optional

    Returns
    -------
    Region or BrokenRegion
        Broken if the ring has fewer than three points or a coordinate that is not finite.
    """
    ring = list(points)
    if len(ring) > 3 and ring[0] == ring[-1]:
        ring.pop()
    try:
        return Region(region_id, tuple(ring), tuple(labels), slide_id)
    except ValueError as error:
        return BrokenRegion(region_id, slide_id, f"{feature}: {error}")


def leave_out(path: Path, feature: str, kind: str, *, reason: str = "which has no area") -> None:
    """Log that a feature is not taken.

    Parameters
    ----------
    path : Path
    feature : str
    kind : str
        What it is instead.
    reason : str, default "which has no area"
        Why that is no region.
    """
    logger.warning("%s: %s is a %s, %s; left out", path, feature, kind, reason)


def unique_names(names: Sequence[str | None], fallbacks: Sequence[str]) -> list[str]:
    """Choose ids: the name a person gave where it is unique in the file, else the fallback.

    Parameters
    ----------
    names : sequence of str or None
    fallbacks : sequence of str
        Of the same length.

    Returns
    -------
    list of str

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
    """Take apart a class name that joins several labels.

    Parameters
    ----------
    name : str or None

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> split_labels("Glomerulus: Crescent")
    ('Glomerulus', 'Crescent')
    """
    parts = (part.strip() for part in (name or "").split(LABEL_SEPARATOR.strip()))
    return tuple(part for part in parts if part)


def join_labels(region: Region) -> str:
    """Join a region's labels to the one name a format has room for.

    Parameters
    ----------
    region : Region

    Returns
    -------
    str
        What `split_labels` takes apart to the same labels.

    Raises
    ------
    RegionError
        If it would take it apart otherwise, because a label holds a colon or outer blanks.
    """
    name = LABEL_SEPARATOR.join(region.labels)
    if split_labels(name) != region.labels:
        raise RegionError(
            f"region {region.region_id!r}: its labels {', '.join(map(repr, region.labels))} cannot "
            "be told apart again in this format; write GeoJSON"
        )
    return name


def shown_number(value: float) -> str:
    """Write a coordinate so that it reads back equal, without a needless fraction.

    Parameters
    ----------
    value : float

    Returns
    -------
    str
    """
    value = float(value)  # whoever made the region may have given integers
    return str(int(value)) if value.is_integer() else repr(value)
