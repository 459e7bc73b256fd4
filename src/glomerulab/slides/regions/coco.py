"""COCO JSON: one file for several slides, a polygon or a box per annotation.

A slide is named by the stem of its image's file name.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.files import SLIDE_SUFFIXES
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    Parsed,
    make_region,
    parse_box,
    parse_point,
    split_labels,
)
from glomerulab.slides.regions.polygons import area


def parse_coco(content: dict[str, Any]) -> Iterator[Parsed]:
    """Yield the annotations of parsed COCO JSON, under their annotation ids.

    Run-length masks are replaced by their bounding box.
    """
    slides = {
        _id(image, "image"): _stem(str(_field(image, "file_name", "image")))
        for image in _entries(content, "images")
    }
    labels = {
        _id(category, "category"): _category_labels(category)
        for category in _entries(content, "categories")
    }
    for number, entry in enumerate(_entries(content, "annotations"), start=1):
        feature = f"annotation {number}"
        slide_id = _look_up(slides, _field(entry, "image_id", feature), "image", feature)
        category = entry.get("category_id")
        named = () if category is None else _look_up(labels, category, "category", feature)
        region_id = str(entry.get("id", number))
        rings = _rings(entry, feature)
        for part, ring in enumerate(rings, start=1):
            part_id = region_id if len(rings) == 1 else f"{region_id}.{part}"
            yield make_region(part_id, ring, named, feature=feature, slide_id=slide_id)


def render_coco(regions: Sequence[Region]) -> str:
    """Return regions as COCO JSON; those without a slide id get an image without a file name."""
    slides = list(dict.fromkeys(region.slide_id for region in regions))
    classes = list(dict.fromkeys(region.labels for region in regions if region.labels))
    annotations = []
    for region in regions:
        xs, ys = [x for x, _ in region.polygon], [y for _, y in region.polygon]
        annotation: dict[str, Any] = {
            "id": region.region_id,
            "image_id": slides.index(region.slide_id) + 1,
            "segmentation": [[value for point in region.polygon for value in point]],
            "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
            "area": area(region.polygon),
            "iscrowd": 0,
        }
        if region.labels:
            annotation["category_id"] = classes.index(region.labels) + 1
        annotations.append(annotation)
    content = {
        "images": [
            {"id": number, "file_name": slide_id or ""}
            for number, slide_id in enumerate(slides, start=1)
        ],
        "annotations": annotations,
        "categories": [
            {"id": number, "name": LABEL_SEPARATOR.join(labels), "labels": list(labels)}
            for number, labels in enumerate(classes, start=1)
        ],
    }
    return json.dumps(content, ensure_ascii=False)


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RegionError(f"{key!r} must be a list of objects")
    return entries


def _field(entry: dict[str, Any], key: str, feature: str) -> Any:  # noqa: ANN401
    if entry.get(key) is None:
        raise RegionError(f"{feature} has no {key!r}")
    return entry[key]


def _id(entry: dict[str, Any], kind: str) -> int | str:
    key = _field(entry, "id", kind)
    if not isinstance(key, str | int):
        raise RegionError(f"{kind} id {key!r} is neither a number nor text")
    return key


def _look_up(table: dict[Any, Any], key: object, kind: str, feature: str) -> Any:  # noqa: ANN401
    if not isinstance(key, str | int) or key not in table:
        raise RegionError(f"{feature}: the file has no {kind} {key!r}")
    return table[key]


def _stem(file_name: str) -> str | None:
    """Return the slide id from an image's file name of any system; None for an empty one."""
    name = PureWindowsPath(PurePosixPath(file_name).name).name
    suffix = PurePosixPath(name).suffix.lower()
    return (name[: -len(suffix)] if suffix in SLIDE_SUFFIXES else name) or None


def _category_labels(category: dict[str, Any]) -> tuple[str, ...]:
    labels = category.get("labels")  # our own addition: a label may hold the separator
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    return split_labels(str(_field(category, "name", "category")))


def _rings(entry: dict[str, Any], feature: str) -> list[list[Point]]:
    """Return the outline of every part, or the box where there is no polygon."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return [_ring(flat, feature) for flat in segmentation]
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise RegionError(f"{feature} has neither a polygon nor a box")
    return [parse_box(*box, feature=feature)]


def _ring(flat: object, feature: str) -> list[Point]:
    if not isinstance(flat, list) or len(flat) % 2:
        raise RegionError(f"{feature}: its segmentation is not a list of x, y")
    return [parse_point(x, y, feature=feature) for x, y in zip(flat[::2], flat[1::2], strict=True)]
