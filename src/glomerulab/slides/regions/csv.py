"""Regions as CSV: one row each, a box or a polygon, for one slide or several.

Columns: ``region_id``, ``x, y, width, height``, ``rotation``, ``polygon``, ``labels``,
``slide_id``. A row needs a box or a polygon; the other columns are optional.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.tables import BOX_COLUMNS, TableSchema, parse_table
from glomerulab.slides.regions.features import Feature, Part
from glomerulab.slides.regions.parsing import format_number, parse_box, parse_point

REGION_COLUMNS = ("region_id", "slide_id", *BOX_COLUMNS, "labels", "polygon")
REGION_TABLE = TableSchema(
    "region file",
    (*REGION_COLUMNS, "rotation"),
    numbers=frozenset({*BOX_COLUMNS, "rotation"}),
    spellings={"labels": ("classes",)},
    keeps_others=False,
    refuses_long_rows=False,
    error=RegionError,
)
LABEL_SEPARATOR = ";"
BLANK = ' \t,;|"'


def parse_csv(text: str, *, where: str | None = None) -> Iterator[Feature]:
    """Yield the rows of a CSV; warnings name the file `where`."""
    table = parse_table(text, REGION_TABLE, where=where)
    columns = set(table.columns)
    if "polygon" not in columns and not columns.issuperset(BOX_COLUMNS):
        raise RegionError(
            f"a region CSV needs the columns {', '.join(BOX_COLUMNS)} or the column polygon; this "
            f"one has {', '.join(sorted(columns))}"
        )
    for number, (line, row) in enumerate(zip(table.lines, table.rows, strict=True), start=1):
        place = f"line {line}"
        feature = _feature(row, place, str(number))
        if line in table.long_lines:
            feature = replace(feature, failure=f"{place} has more fields than the header")
        yield feature
    for line, content in enumerate(text.splitlines(), start=1):
        if content.strip() and not content.strip(BLANK):
            yield Feature(f"line {line}", "", skipped="blank")


def _feature(row: Mapping[str, str], place: str, number: str) -> Feature:
    feature = Feature(
        place,
        number,
        name=row.get("region_id") or None,
        classes=_split(row.get("labels", "")),
        slide_id=row.get("slide_id") or None,
    )
    try:
        outline = tuple(_outline(row, place))
        turn, _ = parse_point(row.get("rotation") or 0, 0, feature=f"{place}, rotation")
    except RegionError as error:
        return replace(feature, failure=error.message)
    if not math.isfinite(turn):
        return replace(feature, failure=f"{place}: its rotation is not finite")
    return replace(feature, parts=(Part(outline),), rotation=turn)


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


def _outline(cells: Mapping[str, str], place: str) -> list[Point]:
    polygon = cells.get("polygon")
    if not polygon:
        return parse_box(*(cells.get(name) for name in BOX_COLUMNS), feature=place)
    pairs = [pair.split() for pair in polygon.split(",")]
    if any(len(pair) != 2 for pair in pairs):
        raise RegionError(f"{place}: polygon must be x y pairs separated by commas")
    return [parse_point(x, y, feature=place) for x, y in pairs]
