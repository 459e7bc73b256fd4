"""COCO JSON: one file for several slides; polygons, a run-length mask or a box per annotation.

A slide is named by the stem of its image's file name. Boxes may be turned: by a fifth number, or by
CVAT's attribute ``rotation``, in degrees clockwise about their centre.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.features import Feature, Part
from glomerulab.slides.regions.masks import MaskReader
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    parse_box,
    parse_point,
    slide_name,
    split_labels,
)
from glomerulab.slides.regions.polygons import area

Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class _Image:
    slide_id: str | None
    size: tuple[float, float] | None


def parse_coco(content: dict[str, Any]) -> Iterator[Feature]:
    """Yield the annotations of parsed COCO JSON."""
    images = _by_id(content, "images", _image)
    categories = _by_id(content, "categories", _category_labels)
    masks = MaskReader()
    for number, entry in enumerate(_entries(content, "annotations"), start=1):
        place = f"annotation {number}"
        feature = Feature(place, str(number))
        if not isinstance(entry, dict):
            yield replace(feature, failure=f"{place} is not an object")
            continue
        try:
            # A crowd is a group of objects; some programs write every mask as one.
            is_crowd = str(entry.get("iscrowd", 0)) == "1"
            feature = replace(feature, own_id=_own_id(entry), is_single=not is_crowd)
            image = _look_up(images, _field(entry, "image_id", place), "image", place)
            feature = replace(feature, slide_id=image.slide_id, image_size=image.size)
            category = entry.get("category_id")
            if category is not None:
                named = _look_up(categories, category, "category", place)
                feature = replace(feature, classes=named)
            yield _with_outline(feature, entry, masks)
        except RegionError as error:
            yield replace(feature, failure=error.message)


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


def _entries(content: dict[str, Any], key: str) -> list[Any]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise RegionError(f"{key!r} must be a list of objects")
    return entries


def _by_id(
    content: dict[str, Any], key: str, parse: Callable[[dict[str, Any]], Kept]
) -> dict[str, Kept | RegionError]:
    """Return the entries of a list by their ids as text; an error for one that is damaged."""
    found: dict[str, Kept | RegionError] = {}
    for entry in _entries(content, key):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            continue  # an annotation that refers to it names what is missing
        try:
            found[str(entry["id"])] = parse(entry)
        except RegionError as error:
            found[str(entry["id"])] = error
    return found


def _field(entry: dict[str, Any], key: str, feature: str) -> Any:  # noqa: ANN401
    if entry.get(key) is None:
        raise RegionError(f"{feature} has no {key!r}")
    return entry[key]


def _own_id(entry: dict[str, Any]) -> str | None:
    own = entry.get("id")
    return str(own) if isinstance(own, str | int) and str(own).strip() else None


def _look_up(table: dict[str, Kept | RegionError], key: object, kind: str, place: str) -> Kept:
    if not isinstance(key, str | int) or str(key) not in table:
        raise RegionError(f"{place}: the file has no {kind} {key!r}")
    found = table[str(key)]
    if isinstance(found, RegionError):
        raise RegionError(f"{place}: {found.message}")
    return found


def _image(image: dict[str, Any]) -> _Image:
    slide_id = slide_name(str(_field(image, "file_name", "image")))
    sides = image.get("width"), image.get("height")
    if sides == (None, None):
        return _Image(slide_id, None)
    try:
        size = parse_point(*sides, feature="image")
    except RegionError:
        size = 0.0, 0.0
    if not all(0 < side < math.inf for side in size):
        raise RegionError(
            f"the width and height of image {image['id']!r} are not a size: "
            f"{sides[0]!r} x {sides[1]!r}"
        )
    return _Image(slide_id, size)


def _category_labels(category: dict[str, Any]) -> tuple[str, ...]:
    labels = category.get("labels")  # our own addition: a label may hold the separator
    if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
        return tuple(labels)
    return split_labels(str(_field(category, "name", "category")))


def _with_outline(feature: Feature, entry: dict[str, Any], masks: MaskReader) -> Feature:
    """Return a feature with the outline of its polygons, its mask, or its box."""
    place = feature.place
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        if not isinstance(segmentation[0], list | dict):
            segmentation = [segmentation]  # one ring without the list around it
        # Some programs write an empty polygon beside a box.
        rings = [ring for flat in segmentation if (ring := _ring(flat, place))]
        if rings:
            return replace(feature, parts=tuple(Part(tuple(ring)) for ring in rings))
    if isinstance(segmentation, dict) and segmentation:
        parts, size = masks.parts(segmentation, place)
        if feature.image_size not in {None, size}:
            raise RegionError(
                f"{place}: its mask has another size than its image: "
                f"{size[0]:g} x {size[1]:g} pixels"
            )
        return replace(feature, parts=parts, image_size=size)
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) not in {4, 5}:
        raise RegionError(f"{place} has neither a polygon nor a box")
    corners = parse_box(*box[:4], feature=place)
    attributes = entry.get("attributes")
    stated = attributes.get("rotation") if isinstance(attributes, dict) else None
    angle = box[4] if len(box) == 5 else entry.get("rotation", stated)
    turn, _ = parse_point(0 if angle is None else angle, 0, feature=f"{place}, rotation")
    if not math.isfinite(turn):
        raise RegionError(f"{place}: its rotation is not finite")
    return replace(feature, parts=(Part(tuple(corners)),), rotation=turn)


def _ring(flat: object, place: str) -> list[Point]:
    if not isinstance(flat, list) or len(flat) % 2:
        raise RegionError(f"{place}: its segmentation is not a list of x, y")
    return [parse_point(x, y, feature=place) for x, y in zip(flat[::2], flat[1::2], strict=True)]
