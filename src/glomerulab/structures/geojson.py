"""Objects and areas of a slide as QuPath GeoJSON, with colours and measurements."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shapely import Polygon

from glomerulab.runtime.files import atomic_write
from glomerulab.slides.slide import Slide
from glomerulab.structures.classes import structure
from glomerulab.structures.maps import StructureMap
from glomerulab.structures.morphometry import MeasuredObject
from glomerulab.structures.polygons import area_polygons, rings

__all__ = ["write_geojson"]

NAMESPACE = uuid.UUID("2f0c4c43-5f5b-5d7c-8b19-6d1ad2f6f8a1")
NOTE = "research use only"
DECIMALS = 2

Feature = dict[str, Any]


def write_geojson(
    structure_map: StructureMap, objects: Iterable[MeasuredObject], slide: Slide, path: Path
) -> None:
    """Write objects and areas as a FeatureCollection that QuPath opens, in its coordinates.

    Each has its structure as class, with the structure's colour; objects have their measures, in
    µm, as measurements. The features are written one by one, whatever their number.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        # Objects after areas, so that they lie on top.
        for features in (_area_features(structure_map), map(_object_feature, objects)):
            for feature in features:
                text = json.dumps(_placed(feature, slide), ensure_ascii=False)
                file.write(separator + text)
                separator = ",\n"
        file.write(f'\n], "note": "{NOTE}"}}\n')


def _area_features(structure_map: StructureMap) -> Iterator[Feature]:
    for name in structure_map.frame.structures:
        if structure(name).kind == "area":
            pieces = sorted(area_polygons(structure_map, name), key=lambda one: -one.area)
            for number, piece in enumerate(pieces, start=1):
                yield _feature(f"{name}-{number}", name, piece, {})


def _object_feature(one: MeasuredObject) -> Feature:
    measurements = {"certainty": round(one.certainty, 4)}
    for name, (value, error) in one.measures.items():
        measurements[name] = float(f"{value:.6g}")
        if error is not None:
            measurements[f"{name} error"] = float(f"{error:.6g}")
    return _feature(one.object_id, one.structure, one.polygon, measurements)


def _feature(
    object_id: str, structure_id: str, polygon: Polygon, measurements: Mapping[str, float]
) -> Feature:
    outline, holes = rings(polygon)
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": object_id,
        "classification": {"name": structure_id, "color": list(structure(structure_id).colour)},
        "isLocked": True,
    }
    if measurements:
        properties["measurements"] = dict(measurements)
    geometry = {"type": "Polygon", "coordinates": [[*one, one[0]] for one in (outline, *holes)]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _placed(feature: Feature, slide: Slide) -> Feature:
    """Return a feature with an id of its own, in QuPath's coordinates of the slide."""
    left, top = slide.bounds_offset
    feature["geometry"]["coordinates"] = [
        [(round(x - left, DECIMALS), round(y - top, DECIMALS)) for x, y in ring]
        for ring in feature["geometry"]["coordinates"]
    ]
    # The same in each export, so that QuPath recognises the object.
    own = f"{slide.slide_id}/{feature['properties']['name']}"
    return {"id": str(uuid.uuid5(NAMESPACE, own)), **feature}
