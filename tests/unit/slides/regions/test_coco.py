import json

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box
from glomerulab.slides.regions.coco import parse_coco, render_coco


def parse(content):
    return list(parse_coco(content))


def content(**annotation):
    return {
        "images": [{"id": 1, "file_name": "folder/case.1.svs"}],
        "categories": [{"id": 3, "name": "cgn: fsg"}],
        "annotations": [{"id": 7, "image_id": 1, **annotation}],
    }


def test_a_polygon_belongs_to_the_slide_of_its_image():
    (region,) = parse(content(segmentation=[[0, 0, 9, 0, 9, 9]], category_id=3))
    assert (region.region_id, region.slide_id) == ("7", "case.1")
    assert region.labels == ("cgn", "fsg")


def test_without_a_polygon_the_box_is_taken():
    (region,) = parse(content(bbox=[1, 2, 30, 40], segmentation={"counts": [1]}))
    assert region.box() == Box(1, 2, 30, 40)
    assert region.labels == ()


def test_a_box_that_is_not_finite_makes_only_its_region_invalid():
    (invalid,) = parse(content(bbox=[1, 2, float("nan"), 4]))
    assert (invalid.region_id, invalid.slide_id) == ("7", "case.1")
    assert "annotation 1" in invalid.reason
    assert "not finite" in invalid.reason


def test_parts_become_regions():
    parts = [[0, 0, 9, 0, 9, 9], [20, 20, 29, 20, 29, 29]]
    assert [r.region_id for r in parse(content(segmentation=parts))] == ["7.1", "7.2"]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [1, 2, 0, 4]}, "above 0"),
        ({"bbox": [1, 2]}, "neither a polygon nor a box"),
        ({"segmentation": [[1, 2, 3]]}, "not a list of x, y"),
        ({"segmentation": [[0, 0, 9, 0, 9, 9]], "category_id": 8}, "no category 8"),
    ],
)
def test_a_malformed_annotation_is_named(annotation, reason):
    with pytest.raises(RegionError, match=f"annotation 1.*{reason}"):
        parse(content(**annotation))


def test_the_written_file_is_valid_coco():
    regions = parse(content(segmentation=[[0, 0, 9, 0, 9, 9]], category_id=3))
    written = json.loads(render_coco(regions))
    annotation = written["annotations"][0]
    assert annotation["bbox"] == [0, 0, 9, 9]
    assert annotation["area"] == 40.5
    assert annotation["iscrowd"] == 0


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("images", {"id": [1], "file_name": "a.svs"}),
        ("categories", {"id": {"n": 1}, "name": "cgn"}),
        ("annotations", {"id": 1, "image_id": [1]}),
        ("categories", {"id": 3}),
        ("images", 7),
    ],
)
def test_an_entry_of_the_wrong_shape_is_a_region_error(key, entry):
    broken = {**content(bbox=[1, 2, 3, 4]), key: [entry]}
    with pytest.raises(RegionError):
        parse(broken)


@pytest.mark.parametrize(
    ("file_name", "slide_id"),
    [
        ("C:\\scans\\case 7.svs", "case 7"),
        ("scans/case.v2", "case.v2"),
        ("case.ome.tiff", "case.ome"),
        ("", None),
    ],
)
def test_the_slide_is_the_stem_of_a_file_name_of_any_system(file_name, slide_id):
    named = content(bbox=[1, 2, 3, 4])
    named["images"][0]["file_name"] = file_name
    assert parse(named)[0].slide_id == slide_id
