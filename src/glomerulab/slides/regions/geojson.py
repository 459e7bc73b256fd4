"""QuPath GeoJSON: an array of features (QuPath 0.2) or a FeatureCollection (since 0.3).

QuPath crops a slide to its ``openslide.bounds`` and counts from their corner; the offset is added
where regions are placed and subtracted on writing, so that regions are always in level-0 pixels.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.features import Feature, Part
from glomerulab.slides.regions.parsing import LABEL_SEPARATOR, parse_point, split_labels

# QuPath before 0.3 wrote the kind of object in place of ids, the same for every feature.
OBJECT_KINDS = {
    "PathAnnotationObject": "annotation",
    "PathDetectionObject": "detection",
    "PathCellObject": "cell",
    "PathTileObject": "tile",
    "PathRootObject": "root",
    "TMACoreObject": "tmaCore",
}
CHILDREN = ("childObjects", "children")
AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
GLOMERULUS_COLOUR = (0, 128, 64)


def parse_geojson(content: object) -> Iterator[Feature]:
    """Yield the objects of parsed GeoJSON, each before the objects that it holds."""
    # A stack in place of recursion, which a hierarchy from a file could exhaust.
    waiting: list[tuple[Any, str | None]] = [(one, None) for one in reversed(_features(content))]
    number = 0
    while waiting:
        one, parent = waiting.pop()
        number += 1
        place = f"feature {number}"
        children = _children(one)
        yield _parsed(one, place, str(number), parent, has_children=bool(children))
        waiting += [(child, place) for child in reversed(children)]


def _parsed(
    one: object, place: str, number: str, parent: str | None, *, has_children: bool
) -> Feature:
    """Return what one GeoJSON feature says, damaged or not."""
    if not isinstance(one, dict):
        return Feature(place, number, parent=parent, failure="it is not an object")
    if one.get("type") in (*AREAS, *WITHOUT_AREA):  # a geometry without a feature around it
        one = {"geometry": one}
    properties = one.get("properties")
    feature = Feature(place, number, own_id=_own_id(one), parent=parent, counts_from_bounds=True)
    if not isinstance(properties or {}, dict):
        return replace(feature, failure="its properties are not an object")
    properties = properties or {}
    feature = replace(
        feature, name=_text(properties.get("name")), object_type=_object_type(one, properties)
    )
    try:
        feature = replace(feature, classes=_classes(properties.get("classification"), place))
        geometry = one.get("geometry")
        if geometry is None and has_children:
            return replace(feature, object_type="root")
        if geometry is None:
            return replace(feature, skipped="no geometry")
        parts = tuple(_parts(geometry, place))
    except RegionError as error:
        return replace(feature, failure=error.message)
    return replace(feature, parts=parts) if parts else replace(feature, skipped="no area")


def _object_type(one: dict[str, Any], properties: dict[str, Any]) -> str:
    """Return the kind of a QuPath object, which every version states in another place."""
    stated = properties.get("objectType") or properties.get("object_type")
    for kind in (stated, one.get("id")):
        if isinstance(kind, str) and kind in OBJECT_KINDS:
            return OBJECT_KINDS[kind]
    # Only a cell has a nucleus; programs that copy features often drop the rest.
    default = "annotation" if one.get("nucleusGeometry") is None else "cell"
    return stated if isinstance(stated, str) else default


def _children(one: object) -> list[Any]:
    """Return the objects that a QuPath object holds."""
    if not isinstance(one, dict):
        return []
    properties = one.get("properties")
    holders = [one, properties if isinstance(properties, dict) else {}]
    found: list[Any] = []
    for holder, key in product(holders, CHILDREN):
        held = holder.get(key)
        if isinstance(held, dict) and held.get("type") == "FeatureCollection":
            held = held.get("features")
        found += held if isinstance(held, list) else []
    return found


def render_geojson(regions: Sequence[Region], *, bounds_offset: Point) -> str:
    """Return regions as a FeatureCollection that QuPath imports."""
    features = [_feature(region, bounds_offset) for region in regions]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)


def _features(content: object) -> list[Any]:
    if isinstance(content, dict) and content.get("type") in ("Feature", *AREAS):
        return [content]
    if isinstance(content, dict) and isinstance(content.get("features"), list):
        content = content["features"]
    if isinstance(content, list) and any(
        isinstance(one, dict) and "image_id" in one and "geometry" not in one for one in content
    ):
        raise RegionError(
            "the JSON is a list of COCO annotations, which does not name its images; give the "
            "whole COCO file, with images, annotations and categories"
        )
    if not isinstance(content, list):
        raise RegionError(
            "the JSON is neither a GeoJSON array of features, nor a FeatureCollection, nor COCO"
        )
    return content


def _parts(geometry: object, place: str) -> Iterator[Part]:
    """Yield the areas of a geometry; none for points and lines."""
    if not isinstance(geometry, dict):
        raise RegionError(f"{place}: its geometry is not an object")
    kind, parts = geometry.get("type"), geometry.get("coordinates")
    if kind in WITHOUT_AREA:
        return
    if kind not in AREAS:
        raise RegionError(f"{place}: unknown geometry type {kind!r}")
    if kind == "GeometryCollection":
        yield from _collected(geometry, place)
        return
    if kind == "Polygon":
        parts = [parts]
    if not isinstance(parts, list) or not parts:
        raise RegionError(f"{place}: the {kind} has no coordinates")
    for part in parts:
        if not isinstance(part, list) or not part or not isinstance(part[0], list):
            raise RegionError(f"{place}: the {kind} has a part without an outline")
        outline, *holes = (_ring(ring, place) for ring in part)
        yield Part(outline, tuple(holes))


def _collected(collection: dict[str, Any], place: str) -> Iterator[Part]:
    members = collection.get("geometries")
    for one in members if isinstance(members, list) else ():
        if isinstance(one, dict) and one.get("type") == "GeometryCollection":
            raise RegionError(f"{place}: it nests GeometryCollections")
        yield from _parts(one, place)


def _ring(ring: object, place: str) -> tuple[Point, ...]:
    if not isinstance(ring, list):
        raise RegionError(f"{place}: {ring!r} is not a ring of points")
    return tuple(_vertex(vertex, place) for vertex in ring)


def _vertex(vertex: object, place: str) -> Point:
    if not isinstance(vertex, list) or len(vertex) < 2:
        raise RegionError(f"{place}: {vertex!r} is not a vertex")
    return parse_point(vertex[0], vertex[1], feature=place)


def _classes(classification: object, place: str) -> tuple[str, ...]:
    """Return the labels of a QuPath class: simple, derived with a colon, or with parents."""
    found: tuple[str, ...] = ()
    while classification is not None:
        if isinstance(classification, str):
            return split_labels(classification) + found
        if isinstance(classification, list):
            classification = {"names": classification}
        if not isinstance(classification, dict):
            raise RegionError(f"{place}: its classification is not an object")
        names = classification.get("names")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names) + found
        found = split_labels(_text(classification.get("name"))) + found
        classification = classification.get("parentClass")
    return found


def _feature(region: Region, offset: Point) -> dict[str, Any]:
    rings = [
        [[x - offset[0], y - offset[1]] for x, y in (*ring, ring[0])]
        for ring in (region.polygon, *region.holes)
    ]
    properties: dict[str, Any] = {"objectType": "annotation"}
    feature: dict[str, Any] = {"type": "Feature"}
    # QuPath's ids are UUIDs; any other id becomes the name that QuPath displays.
    if is_uuid(region.region_id):
        feature["id"] = region.region_id
    else:
        properties["name"] = region.region_id
        if region.source_id is not None:
            feature["id"] = region.source_id
    classes = region.labels if region.source_classes is None else region.source_classes
    if classes:
        properties["classification"] = _classification(classes)
    feature["geometry"] = {"type": "Polygon", "coordinates": rings}
    feature["properties"] = properties
    return feature


def _classification(labels: tuple[str, ...]) -> dict[str, Any]:
    name = LABEL_SEPARATOR.join(labels)
    found: dict[str, Any] = {"name": name, "color": list(GLOMERULUS_COLOUR)}
    if split_labels(name) != labels or len(labels) > 1:
        found["names"] = list(labels)
    return found


def is_uuid(text: str | None) -> bool:
    """Return whether an id is a UUID as QuPath writes it."""
    try:
        return text is not None and str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _own_id(feature: dict[str, Any]) -> str | None:
    own = _text(feature.get("id"))
    return None if own in OBJECT_KINDS else own


def _text(value: object) -> str | None:
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_text and str(value).strip() else None
