"""QuPath GeoJSON: an array of features (QuPath 0.2) or a FeatureCollection (since 0.3).

QuPath crops a slide to its ``openslide.bounds`` and counts from their corner; the offset is added
on reading and subtracted on writing, so that regions are always in level-0 pixels.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    Parsed,
    Skipped,
    make_region,
    parse_point,
    split_labels,
    unique_names,
)

# QuPath before 0.3 wrote the kind of object in place of ids, the same for every feature.
OBJECT_KINDS = frozenset(
    f"{kind}Object"
    for kind in ("PathAnnotation", "PathDetection", "PathCell", "PathTile", "PathRoot", "TMACore")
)
WITHOUT_AREA = {"Point", "MultiPoint", "LineString", "MultiLineString"}
GLOMERULUS_COLOUR = (0, 128, 64)


def parse_geojson(content: object, *, bounds_offset: Point) -> Iterator[Parsed]:
    """Yield the features of parsed GeoJSON.

    Ids are the QuPath names where they are unique, else the features' ids, else their numbers.
    """
    features = _features(content)
    for number, feature in enumerate(features, start=1):
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise RegionError(f"feature {number} has no geometry")
        if not isinstance(feature.get("properties") or {}, dict):
            raise RegionError(f"feature {number}: its properties are not an object")
    properties = [feature.get("properties") or {} for feature in features]
    ids = unique_names(
        [_text(one.get("name")) for one in properties],
        [_own_id(feature) or str(number) for number, feature in enumerate(features, start=1)],
    )
    for number, (region_id, feature) in enumerate(zip(ids, features, strict=True), start=1):
        name = f"feature {number}"
        geometry = feature["geometry"]
        if geometry.get("type") in WITHOUT_AREA:
            yield Skipped(f"{name} is a {geometry['type']}, which has no area")
            continue
        labels = _labels(properties[number - 1].get("classification"), name)
        rings = _outer_rings(geometry, name)
        for part, ring in enumerate(rings, start=1):
            part_id = region_id if len(rings) == 1 else f"{region_id}.{part}"
            points = [_shifted(vertex, bounds_offset, name) for vertex in ring]
            yield make_region(part_id, points, labels, feature=name)


def render_geojson(regions: Sequence[Region], *, bounds_offset: Point) -> str:
    """Return regions as a FeatureCollection that QuPath imports."""
    features = [_feature(region, bounds_offset) for region in regions]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)


def _features(content: object) -> list[Any]:
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    if not isinstance(content, list):
        raise RegionError(
            "the JSON is neither a GeoJSON array of features, nor a FeatureCollection, nor COCO"
        )
    return content


def _outer_rings(geometry: dict[str, Any], feature: str) -> list[list[Any]]:
    """Return the outline of every part, without its holes."""
    kind, parts = geometry.get("type"), geometry.get("coordinates")
    if kind not in {"Polygon", "MultiPolygon"}:
        raise RegionError(f"{feature}: unknown geometry type {kind!r}")
    if kind == "Polygon":
        parts = [parts]
    if not isinstance(parts, list) or not parts:
        raise RegionError(f"{feature}: the {kind} has no coordinates")
    for part in parts:
        if not isinstance(part, list) or not part or not isinstance(part[0], list):
            raise RegionError(f"{feature}: the {kind} has a part without an outline")
    return [part[0] for part in parts]


def _shifted(vertex: object, offset: Point, feature: str) -> Point:
    if not isinstance(vertex, list) or len(vertex) < 2:
        raise RegionError(f"{feature}: {vertex!r} is not a vertex")
    x, y = parse_point(vertex[0], vertex[1], feature=feature)
    return x + offset[0], y + offset[1]


def _labels(classification: object, feature: str) -> tuple[str, ...]:
    """Return the labels of a QuPath class: simple, derived with a colon, or with parents."""
    if classification is None:
        return ()
    if isinstance(classification, str):
        return split_labels(classification)
    if not isinstance(classification, dict):
        raise RegionError(f"{feature}: its classification is not an object")
    names = classification.get("names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    parents = _labels(classification.get("parentClass"), feature)
    return parents + split_labels(_text(classification.get("name")))


def _feature(region: Region, offset: Point) -> dict[str, Any]:
    ring = [[x - offset[0], y - offset[1]] for x, y in (*region.polygon, region.polygon[0])]
    properties: dict[str, Any] = {"objectType": "annotation"}
    feature: dict[str, Any] = {"type": "Feature"}
    # QuPath's ids are UUIDs; any other id becomes the name that QuPath displays.
    if _is_uuid(region.region_id):
        feature["id"] = region.region_id
    else:
        properties["name"] = region.region_id
    if region.labels:
        properties["classification"] = _classification(region.labels)
    feature["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    feature["properties"] = properties
    return feature


def _classification(labels: tuple[str, ...]) -> dict[str, Any]:
    name = LABEL_SEPARATOR.join(labels)
    found: dict[str, Any] = {"name": name, "color": list(GLOMERULUS_COLOUR)}
    if split_labels(name) != labels or len(labels) > 1:
        found["names"] = list(labels)
    return found


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _own_id(feature: dict[str, Any]) -> str | None:
    own = _text(feature.get("id"))
    return None if own in OBJECT_KINDS else own


def _text(value: object) -> str | None:
    if isinstance(value, str | int) and str(value).strip():
        return str(value)
    return None
