"""Regions as CSV: one row each, a box or a polygon, for one slide or several.

Columns: ``region_id``, ``x, y, width, height``, ``polygon``, ``labels``, ``slide_id``. A row needs
a box or a polygon; the rest may be absent.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.parsing import (
    BrokenRegion,
    load_text,
    make_region,
    parse_point,
    shown_number,
)

__all__ = ["REGION_COLUMNS", "parse_csv", "render_csv"]

REGION_COLUMNS = (
    "region_id",
    "slide_id",
    "x",
    "y",
    "width",
    "height",
    "labels",
    "polygon",
)
"""``labels`` are joined by semicolons; ``polygon`` is ``x y`` pairs joined by commas."""

BOX_COLUMNS = ("x", "y", "width", "height")
LABEL_JOINT = ";"


def parse_csv(path: Path) -> list[Region | BrokenRegion]:
    """Read a region CSV.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Region or BrokenRegion
        Called by ``region_id``, else by row number.

    Raises
    ------
    RegionError
        If the columns or a row are not as they must be; the message gives the line.
    """
    try:
        reader = csv.DictReader(io.StringIO(load_text(path)), strict=True)
        columns = set(reader.fieldnames or ())
        if "polygon" not in columns and not columns.issuperset(BOX_COLUMNS):
            raise RegionError(
                f"needs the columns {', '.join(BOX_COLUMNS)} or the column polygon, separated by "
                f"commas; has {', '.join(sorted(columns)) or 'none'}",
                where=str(path),
            )
        return [
            _region(row, number, path, f"line {reader.line_num}")
            for number, row in enumerate(reader, start=1)
        ]
    except csv.Error as error:
        raise RegionError(f"not valid CSV: {error}", where=str(path)) from error


def render_csv(regions: Sequence[Region]) -> str:
    """Write regions as CSV.

    Parameters
    ----------
    regions : sequence of Region

    Returns
    -------
    str

    Raises
    ------
    RegionError
        If a label is empty, has outer blanks or holds a semicolon, which joins labels.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(REGION_COLUMNS)
    for region in regions:
        labels = LABEL_JOINT.join(region.labels)
        if _split(labels) != region.labels:
            raise RegionError(
                f"region {region.region_id!r}: a label may not be empty, nor have outer blanks or "
                f"a semicolon, which joins labels in CSV: {region.labels}"
            )
        box = region.box()
        points = (f"{shown_number(x)} {shown_number(y)}" for x, y in region.polygon)
        numbers = (box.x, box.y, box.width, box.height)
        writer.writerow(
            (region.region_id, region.slide_id or "", *numbers, labels, ", ".join(points))
        )
    return text.getvalue()


def _region(
    row: dict[str, str | None], number: int, path: Path, where: str
) -> Region | BrokenRegion:
    if None in row:
        raise RegionError(f"{where} has more fields than the header", where=str(path))
    return make_region(
        (row.get("region_id") or "").strip() or str(number),
        _outline(row, path, where),
        _split(row.get("labels") or ""),
        feature=where,
        slide_id=(row.get("slide_id") or "").strip() or None,
    )


def _split(labels: str) -> tuple[str, ...]:
    parts = (label.strip() for label in labels.split(LABEL_JOINT))
    return tuple(label for label in parts if label)


def _outline(row: dict[str, str | None], path: Path, where: str) -> list[Point]:
    polygon = (row.get("polygon") or "").strip()
    if polygon:
        pairs = [pair.split() for pair in polygon.split(",")]
        if any(len(pair) != 2 for pair in pairs):
            raise RegionError(
                f"{where}: polygon must be x y pairs joined by commas", where=str(path)
            )
        return [parse_point(x, y, path=path, feature=where) for x, y in pairs]
    x, y = parse_point(row.get("x"), row.get("y"), path=path, feature=where)
    width, height = parse_point(row.get("width"), row.get("height"), path=path, feature=where)
    if width <= 0 or height <= 0:  # a size that is no number breaks this region alone
        raise RegionError(f"{where}: width and height must be above 0", where=str(path))
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
