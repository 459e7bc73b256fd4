"""QuPath GeoJSON: a bare array of features (0.2) or a FeatureCollection (since 0.3).

QuPath cuts a slide to its ``openslide.bounds`` and counts from their corner; the offset is added
on reading and taken off on writing, so that regions are always in level-0 pixels.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    BrokenRegion,
    leave_out,
    make_region,
    parse_point,
    split_labels,
    unique_names,
)

__all__ = ["parse_geojson", "render_geojson"]

# QuPath before 0.3 wrote the kind of object where ids stand, the same for every feature.
OBJECT_KINDS = frozenset(
    f"{kind}Object"
    for kind in ("PathAnnotation", "PathDetection", "PathCell", "PathTile", "PathRoot", "TMACore")
)
GLOMERULUS_COLOUR = (0, 128, 64)


def parse_geojson(
    content: object, path: Path, *, bounds_offset: Point
) -> list[Region | BrokenRegion]:
    """Turn parsed GeoJSON into regions.

    Parameters
    ----------
    content : object
        A list of features, one feature, or a FeatureCollection.
    path : Path
        For the errors.
    bounds_offset : tuple of float
        Added to every coordinate.

    Returns
    -------
    list of Region or BrokenRegion
        Called by their QuPath name where it is unique, else by their id, else by their number.

    Raises
    ------
    RegionError
        If a feature is malformed; the message gives its number.
    """
    features = [
        (f"feature {number}", feature)
        for number, feature in enumerate(_features(content, path), start=1)
    ]
    for where, feature in features:
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise RegionError(f"{where} has no geometry", where=str(path))
        if not isinstance(feature.get("properties") or {}, dict):
            raise RegionError(f"{where}: its properties are not an object", where=str(path))
    names = [_text((feature.get("properties") or {}).get("name")) for _, feature in features]
    fallbacks = [_own_id(feature) or str(number) for number, (_, feature) in enumerate(features, 1)]
    regions: list[Region | BrokenRegion] = []
    for region_id, (where, feature) in zip(unique_names(names, fallbacks), features, strict=True):
        labels = _labels((feature.get("properties") or {}).get("classification"), path, where)
        rings = list(_outer_rings(feature["geometry"], path, where))
        for part, ring in enumerate(rings, start=1):
            part_id = region_id if len(rings) == 1 else f"{region_id}.{part}"
            points = [_shifted(vertex, bounds_offset, path, where) for vertex in ring]
            regions.append(make_region(part_id, points, labels, feature=where))
    return regions


def render_geojson(regions: Sequence[Region], *, bounds_offset: Point) -> str:
    """Write regions as a FeatureCollection that QuPath imports.

    Parameters
    ----------
    regions : sequence of Region
    bounds_offset : tuple of float
        Taken off every coordinate.

    Returns
    -------
    str
        JSON, UTF-8 characters as they are.
    """
    features = [_feature(region, bounds_offset) for region in regions]
    return json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False)


def _features(content: object, path: Path) -> list[Any]:
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    if not isinstance(content, list):
        raise RegionError(
            "neither a GeoJSON array of features, nor a FeatureCollection, nor COCO",
            where=str(path),
        )
    return content


def _outer_rings(geometry: dict[str, Any], path: Path, where: str) -> Iterator[list[Any]]:
    """Yield the outline of every part, without its holes."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind in {"Point", "MultiPoint", "LineString", "MultiLineString"}:
        leave_out(path, where, str(kind))
        return
    if kind not in {"Polygon", "MultiPolygon"}:
        raise RegionError(f"{where}: geometry type {kind!r} is not known", where=str(path))
    parts = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list) or not parts:
        raise RegionError(f"{where}: a {kind} without coordinates", where=str(path))
    for part in parts:
        if not isinstance(part, list) or not part or not isinstance(part[0], list):
            raise RegionError(f"{where}: a {kind} without an outline", where=str(path))
        yield part[0]


def _shifted(vertex: object, offset: Point, path: Path, where: str) -> Point:
    if not isinstance(vertex, list) or len(vertex) < 2:
        raise RegionError(f"{where}: {vertex!r} is not a vertex", where=str(path))
    x, y = parse_point(vertex[0], vertex[1], path=path, feature=where)
    return x + offset[0], y + offset[1]


def _labels(classification: object, path: Path, where: str) -> tuple[str, ...]:
    """Read a QuPath class: plain, derived with a colon, a list of names, or parents."""
    if classification is None:
        return ()
    if isinstance(classification, str):
        return split_labels(classification)
    if not isinstance(classification, dict):
        raise RegionError(f"{where}: classification is not an object", where=str(path))
    names = classification.get("names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    parents = _labels(classification.get("parentClass"), path, where)
    return parents + split_labels(_text(classification.get("name")))


def _feature(region: Region, offset: Point) -> dict[str, Any]:
    ring = [[x - offset[0], y - offset[1]] for x, y in (*region.polygon, region.polygon[0])]
    properties: dict[str, Any] = {"objectType": "annotation"}
    feature: dict[str, Any] = {"type": "Feature"}
    # QuPath's ids are UUIDs; any other id goes where QuPath keeps what a person typed.
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
    shown: dict[str, Any] = {"name": name, "color": list(GLOMERULUS_COLOUR)}
    if split_labels(name) != labels or len(labels) > 1:
        shown["names"] = list(labels)
    return shown


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
