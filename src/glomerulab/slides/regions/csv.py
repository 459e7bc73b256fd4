"""Regions as CSV: one row each, a box or a polygon, for one slide or several.

Columns: ``region_id``, ``x, y, width, height``, ``polygon``, ``labels``, ``slide_id``. A row needs
a box or a polygon; the other columns are optional.
"""

import csv
import io
from collections.abc import Iterator, Sequence

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.tables import BOX_COLUMNS, TableSchema, parse_table
from glomerulab.slides.regions.parsing import (
    Parsed,
    format_number,
    make_region,
    parse_box,
    parse_point,
)

REGION_COLUMNS = ("region_id", "slide_id", *BOX_COLUMNS, "labels", "polygon")
REGION_TABLE = TableSchema(
    "region file",
    REGION_COLUMNS,
    numbers=frozenset(BOX_COLUMNS),
    keeps_others=False,
    error=RegionError,
)
LABEL_SEPARATOR = ";"


def parse_csv(text: str) -> Iterator[Parsed]:
    """Yield the regions of a CSV, under their ``region_id`` or row number."""
    table = parse_table(text, REGION_TABLE)
    columns = set(table.columns)
    if "polygon" not in columns and not columns.issuperset(BOX_COLUMNS):
        raise RegionError(
            f"a region CSV needs the columns {', '.join(BOX_COLUMNS)} or the column polygon; this "
            f"one has {', '.join(sorted(columns))}"
        )
    for number, (line, row) in enumerate(zip(table.lines, table.rows, strict=True), start=1):
        feature = f"line {line}"
        yield make_region(
            row.get("region_id") or str(number),
            _outline(row, feature),
            _split(row.get("labels") or ""),
            feature=feature,
            slide_id=row.get("slide_id") or None,
        )


def render_csv(regions: Sequence[Region]) -> str:
    """Return regions as CSV, with box and polygon."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(REGION_COLUMNS)
    for region in regions:
        labels = LABEL_SEPARATOR.join(region.labels)
        if _split(labels) != region.labels:
            raise RegionError(
                f"region {region.region_id!r}: in CSV a label may not be empty, have outer blanks "
                f"or hold a semicolon, which separates labels: {region.labels}"
            )
        box = region.box()
        points = (f"{format_number(x)} {format_number(y)}" for x, y in region.polygon)
        numbers = (box.x, box.y, box.width, box.height)
        writer.writerow(
            (region.region_id, region.slide_id or "", *numbers, labels, ", ".join(points))
        )
    return text.getvalue()


def _split(labels: str) -> tuple[str, ...]:
    parts = (label.strip() for label in labels.split(LABEL_SEPARATOR))
    return tuple(label for label in parts if label)


def _outline(row: dict[str, str], feature: str) -> list[Point]:
    polygon = (row.get("polygon") or "").strip()
    if not polygon:
        return parse_box(*(row.get(name) for name in BOX_COLUMNS), feature=feature)
    pairs = [pair.split() for pair in polygon.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise RegionError(f"{feature}: polygon must be x y pairs separated by commas")
    return [parse_point(x, y, feature=feature) for x, y in pairs]
