import json

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.geojson import parse_geojson, render_geojson
from glomerulab.slides.regions.parsing import InvalidRegion
from tests.support.region_files import regions_of, select

SQUARE = [[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]
HOLE = [[3, 3], [4, 3], [4, 4], [3, 3]]
UUID = "8a1f1f9c-6d0a-4d3c-9f0e-3f8f6f1f2a3b"


def parse(content, offset=(0.0, 0.0)):
    return regions_of(parse_geojson(content), offset=offset)


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


def test_a_geometry_without_a_feature_is_read():
    assert parse({"type": "Polygon", "coordinates": [SQUARE]})[0].box() == Box(0, 0, 9, 9)


def test_an_area_with_holes_keeps_its_outline():
    (region,) = parse([feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]})])
    assert region.box().width == 9


def moved(ring, x, y=0):
    return [[a + x, b + y] for a, b in ring]


def multi(*rings):
    return feature(
        {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]},
        properties={"name": "g7"},
    )


def test_parts_side_by_side_are_one_glomerulus():
    (region,) = parse([multi(SQUARE, moved(SQUARE, 10))])
    assert (region.region_id, region.box()) == ("g7", Box(0, 0, 19, 9))


def test_specks_are_dropped_with_a_note():
    found = select(parse_geojson([multi(SQUARE, moved(HOLE, 300), [[5, 5], [6, 6]])]))
    assert [(one.region_id, one.box()) for one in found.regions] == [("g7", Box(0, 0, 9, 9))]
    assert found.notes[0].en.startswith("Specks")
    assert found.notes[0].en.endswith("2.")


def test_parts_far_apart_are_glomeruli_of_their_own():
    found = select(parse_geojson([multi(SQUARE, moved(SQUARE, 300))]))
    assert [one.region_id for one in found.regions] == ["g7.1", "g7.2"]
    assert found.notes


def test_a_collection_of_geometries_is_one_annotation():
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    point = {"type": "Point", "coordinates": [1, 2]}
    (region,) = parse([feature({"type": "GeometryCollection", "geometries": [point, square]})])
    assert region.box() == Box(0, 0, 9, 9)


def typed(kind, **properties):
    return feature(properties={"objectType": kind, **properties})


@pytest.mark.parametrize("key", ["childObjects", "children"])
@pytest.mark.parametrize("holder", ["feature", "properties"])
def test_objects_within_objects_are_read(key, holder):
    inner = feature(properties={"name": "inner"})
    outer = feature(properties={"name": "outer"})
    (outer if holder == "feature" else outer["properties"])[key] = [inner]
    assert [one.region_id for one in parse([outer])] == ["outer", "inner"]


def test_a_root_only_holds_others():
    root = {"type": "Feature", "geometry": None, "properties": {"objectType": "root"}}
    root["properties"]["childObjects"] = [feature(properties={"name": "g1"})]
    found = select(parse_geojson(root))
    assert [one.region_id for one in found.regions] == ["g1"]
    assert not found.notes
    assert not found.left_out


@pytest.mark.parametrize(
    "kind", ["cell", "tile", "tmaCore", "TMA core", "tma_core", "detection", "PathTileObject"]
)
def test_objects_that_programs_made_are_left_out_and_counted(kind):
    found = select(parse_geojson([typed("annotation"), typed(kind), typed(kind)]))
    assert len(found.regions) == 1
    assert found.left_out.total() == 2


@pytest.mark.parametrize("old", ["PathCellObject", "PathTileObject", "TMACoreObject"])
def test_the_kinds_of_old_qupath_are_known(old):
    assert parse([feature(id=old)]) == []


def test_an_object_with_a_nucleus_is_a_cell():
    assert parse([feature(nucleusGeometry={"type": "Polygon", "coordinates": [SQUARE]})]) == []


def test_a_list_of_coco_annotations_is_named_as_such():
    with pytest.raises(RegionError, match="COCO"):
        parse([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}])


@pytest.mark.parametrize("name", ["Region*", "Ignore*", "Tissue", "tissue", "Necrosis*"])
def test_outlines_of_tissue_are_left_out_unless_their_class_is_wanted(name):
    features = [typed("annotation", classification={"name": name}), typed("annotation")]
    found = select(parse_geojson(features))
    assert len(found.regions) == 1
    assert found.left_out == {name: 1}
    (wanted,) = select(parse_geojson(features), classes=(name,)).regions
    assert wanted.labels == (name,)


def test_a_wanted_class_may_be_that_of_detections():
    found = select(parse_geojson([typed("detection", classification="Glom")]), classes=("glom",))
    assert len(found.regions) == 1


def test_only_wanted_classes_are_taken_under_their_labels():
    names = ("Global sclerosis", "Tubule", "cgn: fsg", None)
    features = [typed("annotation", classification=name and {"name": name}) for name in names]
    found = select(
        parse_geojson(features), classes=("global  SCLEROSIS=gsg", "fsg=segmental"), skip_classes=()
    )
    assert [one.labels for one in found.regions] == [("gsg",), ("cgn", "segmental")]
    assert found.left_out.total() == 2
    assert found.left_out["Tubule"] == 1


def test_unwanted_classes_are_left_out():
    features = [typed("annotation", classification=name) for name in ("cgn", "Tubule")]
    (region,) = select(parse_geojson(features), skip_classes=("tubule",)).regions
    assert region.labels == ("cgn",)


def test_the_names_and_ids_of_the_sender_are_written_back():
    sent = [feature(id=UUID, properties={"name": "g1", "classification": {"name": "Scar"}})]
    regions = select(parse_geojson(sent), classes=("Scar=gsg",)).regions
    assert regions[0].labels == ("gsg",)
    (written,) = json.loads(render_geojson(regions, bounds_offset=(0.0, 0.0)))["features"]
    assert (written["id"], written["properties"]["name"]) == (UUID, "g1")
    assert written["properties"]["classification"]["name"] == "Scar"


def test_holes_are_written_back():
    regions = parse([feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]})])
    (written,) = json.loads(render_geojson(regions, bounds_offset=(0.0, 0.0)))["features"]
    assert written["geometry"]["coordinates"] == [SQUARE, HOLE]


@pytest.mark.parametrize(
    ("classification", "labels"),
    [
        (None, ()),
        ({"name": "Crescent", "color": [1, 2, 3]}, ("Crescent",)),
        ({"name": "Crescent", "colorRGB": -3140401}, ("Crescent",)),
        ({"name": "cgn: fsg"}, ("cgn", "fsg")),
        ({"names": ["cgn", "fsg"]}, ("cgn", "fsg")),
        (["cgn", "fsg"], ("cgn", "fsg")),
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


NOT_A_PLACE = {"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [1, 1]]]}
FLAT = {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [200, 0]]]}


@pytest.mark.parametrize(
    "bad",
    [
        7,
        feature({"type": "MultiPolygon", "coordinates": [[SQUARE], []]}),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "Polygon", "coordinates": [[]]}),
        feature({"type": "Polygon", "coordinates": [[1, 2]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}),
        feature({"type": "Polygon", "coordinates": [[[0, 0], [1, float("nan")], [1, 1]]]}),
        feature({"type": "Circle"}),
        feature(NOT_A_PLACE),
        feature(FLAT),
        feature(properties=["name"]),
        feature(properties={"classification": 3}),
    ],
)
def test_a_bad_feature_is_named_and_its_neighbours_are_read(bad):
    good = [feature(properties={"name": name}) for name in ("a", "b")]
    first, last, failed = parse([good[0], bad, good[1]])
    assert (first.region_id, last.region_id) == ("a", "b")
    assert isinstance(failed, InvalidRegion)
    assert failed.region_id == "2"
    assert failed.reason.startswith("feature 2")


def test_a_feature_without_a_geometry_is_skipped_with_a_note():
    found = select(parse_geojson([feature() | {"geometry": None}, feature()]))
    assert len(found.regions) == 1
    assert not found.invalid
    assert "feature 1" in found.notes[0].en


def test_bad_cells_are_no_failures():
    found = select(parse_geojson([typed("cell") | {"geometry": NOT_A_PLACE}]))
    assert (found.regions, found.invalid) == ([], [])


def test_a_hierarchy_of_any_depth_is_read():
    deep = feature()
    for _ in range(2_000):
        deep = feature(children=[deep])
    assert len(parse([deep])) == 2_001


def test_the_places_of_a_scan_drawn_at_another_scale_are_scaled_from_the_bounds():
    (region,) = select(
        parse_geojson([feature()]), drawn_mpp=2.0, mpp=(0.5, 0.25), offset=(100.0, 10.0)
    ).regions
    assert region.box() == Box(100, 10, 36, 72)
    (region,) = select(parse_geojson([feature()]), ignore_bounds=True, offset=(100.0, 10.0)).regions
    assert region.box() == Box(0, 0, 9, 9)
