"""COCO JSON: one file for several slides, a polygon or a box per annotation.

Read as `images`, `annotations` and `categories`; a slide is named by its image's file name.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.find import SLIDE_SUFFIXES
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    BrokenRegion,
    make_region,
    parse_point,
    split_labels,
)

__all__ = ["parse_coco", "render_coco"]


def parse_coco(content: dict[str, Any], path: Path) -> list[Region | BrokenRegion]:
    """Turn parsed COCO JSON into regions.

    Parameters
    ----------
    content : dict
        With ``images``, ``annotations`` and, if any is classified, ``categories``.
    path : Path
        For the errors.

    Returns
    -------
    list of Region or BrokenRegion
        Called by their annotation id; `slide_id` is the stem of the image's file name. Run-length
        masks are taken by their bounding box.
    """
    slides = {
        _id(image, path, "image"): _stem(str(_field(image, "file_name", path, "image")))
        for image in _entries(content, "images", path)
    }
    labels = {
        _id(category, path, "category"): _category_labels(category, path)
        for category in _entries(content, "categories", path)
    }
    regions: list[Region | BrokenRegion] = []
    for number, entry in enumerate(_entries(content, "annotations", path), start=1):
        where = f"annotation {number}"
        slide_id = _known(slides, _field(entry, "image_id", path, where), "image", path, where)
        category = entry.get("category_id")
        named = () if category is None else _known(labels, category, "category", path, where)
        region_id = str(entry.get("id", number))
        rings = _rings(entry, path, where)
        for part, ring in enumerate(rings, start=1):
            part_id = region_id if len(rings) == 1 else f"{region_id}.{part}"
            regions.append(make_region(part_id, ring, named, feature=where, slide_id=slide_id))
    return regions


def render_coco(regions: Sequence[Region]) -> str:
    """Write regions as COCO JSON.

    Parameters
    ----------
    regions : sequence of Region
        Those without a slide id go under an image without a file name.

    Returns
    -------
    str
    """
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
            "area": _area(region.polygon),
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


def _entries(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RegionError(f"{key!r} is not a list of objects", where=str(path))
    return entries


def _field(entry: dict[str, Any], key: str, path: Path, where: str) -> Any:  # noqa: ANN401
    if entry.get(key) is None:
        raise RegionError(f"{where} has no {key!r}", where=str(path))
    return entry[key]


def _id(entry: dict[str, Any], path: Path, kind: str) -> int | str:
    key = _field(entry, "id", path, kind)
    if not isinstance(key, str | int):
        raise RegionError(f"{kind} id {key!r} is neither a number nor text", where=str(path))
    return key


def _known(table: dict[Any, Any], key: object, kind: str, path: Path, where: str) -> Any:  # noqa: ANN401
    if not isinstance(key, str | int) or key not in table:
        raise RegionError(f"{where}: there is no {kind} {key!r}", where=str(path))
    return table[key]


def _stem(file_name: str) -> str | None:
    """Return the slide's name for an image file's name of any system; None for an empty one."""
    name = PureWindowsPath(PurePosixPath(file_name).name).name
    suffix = PurePosixPath(name).suffix.lower()
    return (name[: -len(suffix)] if suffix in SLIDE_SUFFIXES else name) or None


def _category_labels(category: dict[str, Any], path: Path) -> tuple[str, ...]:
    labels = category.get("labels")  # our own addition: a label may hold the separator
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    return split_labels(str(_field(category, "name", path, "category")))


def _rings(entry: dict[str, Any], path: Path, where: str) -> list[list[Point]]:
    """Return the outline of every part, or the box where there is no polygon."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return [_ring(flat, path, where) for flat in segmentation]
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise RegionError(f"{where} has neither a polygon nor a box", where=str(path))
    x, y = parse_point(box[0], box[1], path=path, feature=where)
    width, height = parse_point(box[2], box[3], path=path, feature=where)
    if width <= 0 or height <= 0:  # a size that is no number breaks this region alone
        raise RegionError(f"{where}: its box has no area", where=str(path))
    return [[(x, y), (x + width, y), (x + width, y + height), (x, y + height)]]


def _ring(flat: object, path: Path, where: str) -> list[Point]:
    if not isinstance(flat, list) or len(flat) % 2:
        raise RegionError(f"{where}: its segmentation is not a list of x, y", where=str(path))
    return [
        parse_point(x, y, path=path, feature=where)
        for x, y in zip(flat[::2], flat[1::2], strict=True)
    ]


def _area(polygon: Sequence[Point]) -> float:
    """Shoelace formula."""
    following = [*polygon[1:], polygon[0]]
    doubled = sum(x * v - u * y for (x, y), (u, v) in zip(polygon, following, strict=True))
    return abs(doubled) / 2
