import copy
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.errors import ConfigError
from glomerulab.slides.regions.coco import parse_coco
from glomerulab.slides.regions.features import Feature, Part, RegionOptions, SlideFrame
from glomerulab.slides.regions.geojson import parse_geojson
from glomerulab.slides.regions.selection import select_regions, unmatched_notes
from tests.support.region_files import select

SQUARE = ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0))


def drawn(number, **facts):
    return Feature(f"feature {number}", str(number), parts=(Part(SQUARE),), **facts)


def ids(*features):
    return [one.region_id for one in select(features).regions]


def test_no_id_is_used_twice_whatever_the_file_calls_its_objects():
    assert ids(drawn(1, name="2"), drawn(2)) == ["2", "2-2"]
    assert ids(drawn(1, name="g"), drawn(2, name="G")) == ["g", "G-2"]
    assert ids(drawn(1, name="g"), drawn(2, name="g")) == ["1", "2"]
    assert ids(drawn(1, own_id="a"), drawn(2, own_id="a")) == ["1", "2"]


def test_slides_have_ids_of_their_own():
    one, other = (drawn(n, name="g", slide_id=f"s{n}") for n in (1, 2))
    assert ids(one, other) == ["g", "g"]


NAMES = st.none() | st.text(string.ascii_letters + string.digits + ".-", min_size=1, max_size=3)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=8))
def test_ids_are_always_unique(names):
    found = ids(*(drawn(n, name=one, own_id=two) for n, (one, two) in enumerate(names)))
    assert len({one.casefold() for one in found}) == len(names)


@pytest.mark.parametrize("stated", ["s1", "s1.svs", "D:\\scans\\s1.svs", "scan.tif", "e\u0301"])
def test_a_slide_may_be_named_by_its_file_or_in_another_unicode_form(stated):
    features = [drawn(1, slide_id=stated), drawn(2, slide_id="s2")]
    found = select_regions(
        features, SlideFrame(), RegionOptions(), slide_id="s1", slide_names=("scan.tif", "\u00e9")
    )
    assert [one.slide_id for one in found.regions] == ["s1"]


def test_classes_of_the_options_that_no_object_has_are_named():
    options = RegionOptions(("cgn", "fsg=other"), ("Tubul",))
    (note,) = unmatched_notes(Counter({"cgn": 2, "Tubule": 9}), options)
    assert "'fsg', 'Tubul'" in note.en
    assert "Tubule (9x)" in note.en
    assert unmatched_notes(Counter({"cgn: fsg": 2}), RegionOptions(("CGN", "fsg"))) == []


def test_an_outline_that_crosses_itself_is_kept():
    bow = ((0.0, 0.0), (9.0, 9.0), (9.0, 0.0), (0.0, 9.0))
    (region,) = select([Feature("feature 1", "1", parts=(Part(bow),))]).regions
    assert region.polygon == bow


@pytest.mark.parametrize(
    "outline",
    [
        ((0.0, 0.0), (5.0, 5.0), (9.0, 9.0)),
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
        ((0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.1, 0.1)),
        ((400.0, 480.0), (600.0, 480.0), (600.0, 480.00001)),
    ],
)
def test_an_outline_without_area_is_a_failure_and_no_square(outline):
    found = select([Feature("feature 1", "1", parts=(Part(outline),)), drawn(2)])
    assert [one.region_id for one in found.regions] == ["2"]
    assert [one.region_id for one in found.invalid] == ["1"]
    assert "area" in found.invalid[0].reason


@pytest.mark.parametrize("far", [1e308, 1e12, float("inf"), float("nan")])
def test_a_coordinate_on_no_slide_is_a_failure(far):
    found = select([Feature("feature 1", "1", parts=(Part(((far, 0.0), *SQUARE[1:])),)), drawn(2)])
    assert ([one.region_id for one in found.regions], len(found.invalid)) == (["2"], 1)


@pytest.mark.parametrize(
    "options",
    [
        {"classes": ("",)},
        {"classes": ("=gsg",)},
        {"skip_classes": (" ",)},
        {"classes": ("a=b", "A=c")},
        {"classes": ("a",), "skip_classes": ("A",)},
        {"drawn_mpp": 0.0},
        {"drawn_mpp": float("nan")},
    ],
)
def test_contradicting_options_are_refused(options):
    with pytest.raises(ConfigError):
        RegionOptions(**options)


def geojson():
    square = [[x, y] for x, y in (*SQUARE, SQUARE[0])]
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [square]},
            "properties": {"name": name, "classification": {"name": "cgn"}},
        }
        for name in ("first", "second", "third")
    ]


def coco():
    return {
        "images": [{"id": 1, "file_name": "s.svs", "width": 90, "height": 90}],
        "categories": [{"id": 1, "name": "cgn"}],
        "annotations": [
            {"id": name, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 0}
            for name in ("first", "second", "third")
        ],
    }


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**20)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["Polygon", "MultiPolygon", "GeometryCollection", "Point", "cell", "root"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "geometry",
                    "coordinates",
                    "properties",
                    "children",
                    "id",
                    "bbox",
                    "counts",
                    "geometries",
                    "size",
                    "rotation",
                    "classification",
                    "name",
                    "names",
                    "parentClass",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def mutated(data, value):
    """Replace one place in a JSON value, at any depth, by junk."""
    if isinstance(value, dict | list) and value and data.draw(st.booleans()):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key = data.draw(st.sampled_from(keys))
        value[key] = mutated(data, value[key])
        return value
    return data.draw(JUNK)


@given(st.data())
@settings(max_examples=300)
def test_a_mutated_feature_of_geojson_never_hides_its_neighbours(data):
    features = geojson()
    features[1] = mutated(data, copy.deepcopy(features[1]))
    found = select(parse_geojson(features), size=(90, 90))
    others = {one.region_id for one in found.regions}
    assert len(others) == len(found.regions)
    assert len(found.regions) >= 2
    assert {region.box() for region in found.regions if region.region_id in {"first", "third"}} <= {
        select(parse_geojson(geojson())).regions[0].box()
    }


@given(st.data())
@settings(max_examples=300)
def test_a_mutated_annotation_of_coco_never_hides_its_neighbours(data):
    content = coco()
    content["annotations"][1] = mutated(data, content["annotations"][1])
    found = select(parse_coco(content), size=(90, 90))
    assert len(found.regions) + len(found.invalid) + found.left_out.total() == 3
    assert len(found.regions) >= 2


def test_an_untouched_file_gives_every_region():
    for features in (parse_geojson(geojson()), parse_coco(coco())):
        assert [one.region_id for one in select(features).regions] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("used", "stated", "is_refused"),
    [
        (None, None, False),
        (None, (0.5, 0.5), True),
        (None, (0.25, 0.25), False),
        ((0.5, 0.5), None, True),  # of the table or an option
        ((0.25, 0.25), (0.5, 0.5), False),
        ((0.5, 0.5), (0.25, 0.25), False),
        ((0.5, 0.5), (300.0, 300.0), True),
    ],
)
def test_a_region_drawn_at_a_scale_that_the_slide_has_not_is_refused(used, stated, is_refused):
    frame = SlideFrame((100, 100), mpp_xy=used, stated_mpp_xy=stated)
    found = select_regions([drawn(1, drawn_mpp=0.25)], frame, RegionOptions())
    assert bool(found.invalid) == is_refused
    assert all("0.25" in one.reason for one in found.invalid)


def test_a_scale_given_in_place_of_that_of_the_region_file_is_told():
    frame = SlideFrame((100, 100), mpp_xy=(0.5, 0.5))
    for given_mpp, is_told in ((1.0, True), (0.25, False)):
        features = [drawn(1, drawn_mpp=0.25), drawn(2)]
        found = select_regions(features, frame, RegionOptions(drawn_mpp=given_mpp))
        assert any("0.25" in note.en and "1 was given" in note.en for note in found.notes) == (
            is_told
        )
