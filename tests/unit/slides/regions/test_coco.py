import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from glomerulab.errors import RegionError
from glomerulab.geometry import Box
from glomerulab.slides.regions.coco import parse_coco, render_coco
from glomerulab.slides.regions.masks import MaskReader
from glomerulab.slides.regions.parsing import InvalidRegion
from glomerulab.slides.regions.polygons import area
from tests.support.region_files import regions_of, select


def parse(content, **settings):
    return regions_of(parse_coco(content), **settings)


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
    (region,) = parse(content(bbox=[1, 2, 30, 40], segmentation=[]))
    assert region.box() == Box(1, 2, 30, 40)
    assert region.labels == ()


def test_a_box_is_taken_beside_a_polygon_without_points():
    (region,) = parse(content(bbox=[1, 2, 30, 40], segmentation=[[]]))
    assert region.box() == Box(1, 2, 30, 40)


def test_ids_may_be_numbers_in_one_place_and_text_in_another():
    (region,) = parse(content(bbox=[1, 2, 3, 4], category_id="3") | {"info": {}})
    assert region.labels == ("cgn", "fsg")


def test_a_box_that_is_not_finite_makes_only_its_region_invalid():
    (invalid,) = parse(content(bbox=[1, 2, float("nan"), 4]))
    assert (invalid.region_id, invalid.slide_id) == ("7", "case.1")
    assert "annotation 1" in invalid.reason
    assert "not finite" in invalid.reason


def test_all_polygons_of_an_annotation_are_one_glomerulus():
    parts = [[0, 0, 9, 0, 9, 9], [20, 20, 29, 20, 29, 29], [90, 90, 90.1, 90, 90, 90.1]]
    found = select(parse_coco(content(segmentation=parts)))
    assert [(one.region_id, one.box()) for one in found.regions] == [("7", Box(0, 0, 29, 29))]
    assert found.notes[0].en.startswith("Specks")
    assert found.notes[0].en.endswith("1.")


MASK = np.zeros((40, 60), np.uint8, order="F")
MASK[5:15, 10:30] = 1
MASK[35, 50] = 1


def runs(mask):
    """Return the uncompressed run lengths of a mask."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], ends])).tolist()


@pytest.mark.parametrize(
    "counts", [runs(MASK), coco_mask.encode(MASK)["counts"].decode()], ids=["runs", "compressed"]
)
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_a_mask_becomes_its_outline(counts, iscrowd):
    mask = {"size": [40, 60], "counts": counts}
    (region,) = parse(content(segmentation=mask, iscrowd=iscrowd, bbox=[0, 0, 1, 1]))
    assert region.box() == Box(10, 5, 20, 10)
    assert area(region.polygon) == pytest.approx(200, rel=0.01)


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [40, 60], "counts": [1, 2]},
        {"size": [40, 60], "counts": "zz"},
        {"size": [40, 60], "counts": ""},
        {"size": [40, 60], "counts": [2400]},
        {"size": [40, 60], "counts": [-1, 2401]},
        {"size": [40], "counts": [40]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"counts": [1]},
    ],
)
def test_a_damaged_mask_is_named(mask):
    (failed,) = parse(content(segmentation=mask))
    assert isinstance(failed, InvalidRegion)
    assert failed.reason.startswith("annotation 1")


@pytest.mark.parametrize(
    "turned",
    [
        {"bbox": [400, 560, 400, 60], "attributes": {"rotation": 90.0}},
        {"bbox": [400, 560, 400, 60, 90]},
        {"bbox": [400, 560, 400, 60], "attributes": {"rotation": "270"}},
    ],
)
def test_a_turned_box_is_turned_about_its_centre(turned):
    (region,) = parse(content(**turned))
    assert region.box() == Box(570, 390, 60, 400)


def test_a_box_turns_clockwise_on_screen():
    (region,) = parse(content(bbox=[0, 0, 20, 10, 30]))
    right, _ = region.polygon[1]
    assert region.polygon[1][1] == pytest.approx(5 + 10 * 0.5 - 5 * 3**0.5 / 2)
    assert right == pytest.approx(10 + 10 * 3**0.5 / 2 + 5 * 0.5)


def sized(width, height, **annotation):
    found = content(**annotation)
    found["images"][0] |= {"width": width, "height": height}
    return found


@pytest.mark.parametrize("size", [(600, 245), (60, 25), (4802, 1964)])
def test_boxes_on_a_scaled_copy_are_scaled_to_level_0(size):
    width, height = size
    box = [width / 4, height / 4, width / 2, height / 2]
    found = select(parse_coco(sized(width, height, bbox=box)), size=(2401, 982))
    (region,) = found.regions
    assert region.polygon[0] == pytest.approx((2401 / 4, 982 / 4))
    assert region.polygon[2] == pytest.approx((2401 * 3 / 4, 982 * 3 / 4))
    assert "2401 x 982" in found.notes[0].en


@pytest.mark.parametrize("size", [(982, 2401), (245, 600), (1000, 1000), (2401, 1200)])
def test_an_image_of_another_shape_is_refused_with_both_sizes(size):
    width, height = size
    (failed,) = parse(sized(width, height, bbox=[1, 2, 3, 4]), size=(2401, 982))
    assert isinstance(failed, InvalidRegion)
    assert f"{width} x {height}" in failed.reason
    assert "2401 x 982" in failed.reason


def test_a_drawn_mpp_decides_over_the_stated_size():
    (region,) = parse(
        sized(600, 600, bbox=[1, 2, 3, 4]), size=(2401, 982), mpp=(1.0, 1.0), drawn_mpp=4.0
    )
    assert region.box() == Box(4, 8, 12, 16)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": []}, "neither a polygon nor a box"),
        ({"bbox": [1, 2, 0, 4]}, "above 0"),
        ({"bbox": [1, 2, 3, -4]}, "above 0"),
        ({"bbox": [1, 2]}, "neither a polygon nor a box"),
        ({"bbox": [1, 2, 3, 4, "x"]}, "rotation"),
        ({"bbox": [1, 2, 3, None]}, "pair of numbers"),
        ({"segmentation": [[1, 2, 3]]}, "not a list of x, y"),
        ({"segmentation": [[0, 0, 9, 0, 9, 9]], "category_id": 8}, "no category 8"),
        ({"bbox": [1, 2, 3, 4], "image_id": [1]}, "no image"),
        ({"bbox": [1, 2, 3, 4], "image_id": None}, "image_id"),
    ],
)
def test_a_malformed_annotation_is_named_and_its_neighbour_is_read(annotation, reason):
    both = content(**annotation)
    both["annotations"].append({"id": 8, "image_id": 1, "bbox": [1, 2, 3, 4]})
    good, failed = parse(both)
    assert (good.region_id, failed.region_id) == ("8", "7")
    assert failed.reason.startswith("annotation 1")
    assert reason in failed.reason


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
        ("images", {"id": 1}),
        ("images", {"id": 1, "file_name": "a.svs", "width": "wide", "height": 2}),
        ("images", {"id": 1, "file_name": "a.svs", "width": 0, "height": 2}),
        ("images", 7),
        ("categories", {"id": {"n": 1}, "name": "cgn"}),
        ("categories", {"id": 3}),
        ("annotations", 7),
    ],
)
def test_a_damaged_entry_fails_the_annotations_that_need_it(key, entry):
    broken = {**content(bbox=[1, 2, 3, 4], category_id=3), key: [entry]}
    (failed,) = parse(broken)
    assert isinstance(failed, InvalidRegion)


def test_a_list_that_is_none_is_refused():
    with pytest.raises(RegionError, match="images"):
        parse({"images": 7, "annotations": []})


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


@given(
    pixels=arrays(
        np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1)
    )
)
def test_compressed_and_plain_masks_have_the_same_outlines(pixels):
    encoded = coco_mask.encode(np.asfortranarray(pixels))
    size = list(pixels.shape)
    if not pixels.any():
        with pytest.raises(RegionError):
            MaskReader().parts({"size": size, "counts": runs(pixels)}, "a")
        return
    parts, _ = MaskReader().parts({"size": size, "counts": encoded["counts"].decode()}, "a")
    assert (parts, _) == MaskReader().parts({"size": size, "counts": runs(pixels)}, "a")
    # Outer outlines with their holes filled, drawn again, hold every pixel of the mask.
    corners = [part.outline for part in parts]
    rows, columns = np.nonzero(pixels)
    xs, ys = [x for ring in corners for x, _ in ring], [y for ring in corners for _, y in ring]
    assert (min(xs), min(ys)) == (columns.min(), rows.min())
    assert (max(xs), max(ys)) == (columns.max() + 1, rows.max() + 1)


def test_a_small_mask_on_a_whole_slide_is_drawn_alone():
    height, width = 100_000, 200_000
    counts = [height * 5 + 7, 2, height - 2, 2, height * (width - 7) + height - 9]
    (region,) = parse(
        {
            "images": [{"id": 1, "file_name": "s.svs"}],
            "annotations": [
                {
                    "id": 1,
                    "image_id": 1,
                    "segmentation": {"size": [height, width], "counts": counts},
                }
            ],
        }
    )
    assert region.box() == Box(5, 7, 2, 2)


@pytest.mark.parametrize("n_masks", [1, 60])
def test_masks_that_fill_the_memory_or_hours_are_refused(n_masks):
    side = 20_000 if n_masks == 1 else 3_900
    mask = {"size": [side, side], "counts": [0, side * side]}
    reader = MaskReader()
    reader._n_drawn = 0 if n_masks == 1 else 59 * side * side  # those before it
    with pytest.raises(RegionError, match="polygons"):
        reader.parts(mask, "a")
