import json

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Region
from glomerulab.slides.regions.geojson import parse_geojson, render_geojson

SQUARE = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
HOLE = [[3, 3], [4, 3], [4, 4], [3, 3]]
UUID = "8a1f1f9c-6d0a-4d3c-9f0e-3f8f6f1f2a3b"


def parse(content, offset=(0.0, 0.0)):
    return list(parse_geojson(content, bounds_offset=offset))


def feature(geometry=None, **others):
    return {
        "type": "Feature",
        "geometry": geometry or {"type": "Polygon", "coordinates": [SQUARE]},
        **others,
    }


@pytest.mark.parametrize(
    "wrap", [list, lambda features: {"type": "FeatureCollection", "features": features}]
)
def test_both_shapes_of_qupath_are_read(wrap):
    assert [region.region_id for region in parse(wrap([feature(), feature()]))] == ["1", "2"]


def test_a_single_feature_is_read():
    assert len(parse(feature())) == 1


def test_an_area_with_holes_keeps_its_outline():
    (region,) = parse([feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]})])
    assert region.box().width == 9


def test_an_area_of_parts_becomes_a_region_per_part():
    geometry = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]}
    regions = parse([feature(geometry, properties={"name": "g7"})])
    assert [region.region_id for region in regions] == ["g7.1", "g7.2"]


@pytest.mark.parametrize(
    ("classification", "labels"),
    [
        (None, ()),
        ({"name": "Crescent", "color": [1, 2, 3]}, ("Crescent",)),
        ({"name": "Crescent", "colorRGB": -3140401}, ("Crescent",)),
        ({"name": "cgn: fsg"}, ("cgn", "fsg")),
        ({"names": ["cgn", "fsg"]}, ("cgn", "fsg")),
        ({"name": "fsg", "parentClass": {"name": "cgn"}}, ("cgn", "fsg")),
        ("新月体形成", ("新月体形成",)),
    ],
)
def test_every_way_qupath_writes_classes_is_read(classification, labels):
    (region,) = parse([feature(properties={"classification": classification})])
    assert region.labels == labels


def test_a_unique_name_is_the_id_and_otherwise_the_uuid():
    named = feature(id=UUID, properties={"name": "glom 3"})
    assert parse([named])[0].region_id == "glom 3"
    assert parse([feature(id=UUID, properties={})])[0].region_id == UUID
    other = feature(id="b", properties={"name": "glom 3"})
    assert [region.region_id for region in parse([named, other])] == [UUID, "b"]


def test_several_labels_are_written_as_a_derived_class_for_old_and_new_qupath():
    region = Region(UUID, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), ("cgn", "fsg"))
    written = json.loads(render_geojson([region], bounds_offset=(0.0, 0.0)))["features"][0]
    assert written["id"] == UUID
    assert written["properties"]["classification"]["name"] == "cgn: fsg"
    assert written["properties"]["classification"]["names"] == ["cgn", "fsg"]
    assert written["geometry"]["coordinates"][0][0] == written["geometry"]["coordinates"][0][-1]


def test_the_class_names_that_old_qupath_gave_for_ids_are_none():
    old = feature(
        id="PathAnnotationObject",
        properties={"classification": {"name": "cgn", "colorRGB": -3140401}, "isLocked": False},
    )
    assert [region.region_id for region in parse([old, old])] == ["1", "2"]


def test_no_hole_adds_a_point_to_the_outline():
    (region,) = parse([feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]})], (100.0, 50.0))
    assert region.polygon == ((100.0, 50.0), (109.0, 50.0), (109.0, 59.0), (100.0, 59.0))


def test_a_part_without_points_is_invalid_and_the_others_are_kept():
    two = feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [[]]]})
    valid, invalid = parse([two])
    assert (valid.region_id, invalid.region_id) == ("1.1", "1.2")
    assert invalid.reason.startswith("feature 1")
    assert "has 0 points" in invalid.reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (feature({"type": "MultiPolygon", "coordinates": [[SQUARE], []]}), "without an outline"),
        (feature({"type": "Polygon", "coordinates": [[1, 2]]}), "is not a vertex"),
        (feature(properties=["name"]), "properties are not an object"),
        (feature(properties={"classification": 3}), "classification is not an object"),
    ],
)
def test_the_malformed_feature_is_named_among_good_ones(bad, reason):
    with pytest.raises(RegionError, match=f"feature 2.*{reason}"):
        parse([feature(), bad])
