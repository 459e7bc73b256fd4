import json
import logging
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import Polygon, make_valid

from glomerulab.errors import RegionError
from glomerulab.geometry import Region
from glomerulab.slides.regions.files import read_regions, write_regions

POLYGON = '[{"geometry": {"type": "Polygon", "coordinates": [%s]}}]'
IMAGESCOPE = """<Annotations><Annotation><Regions><Region>
<Vertices><Vertex X="1"/></Vertices></Region></Regions></Annotation></Annotations>"""
ASAP = """<ASAP_Annotations><Annotations><Annotation Name="a"><Coordinates>
<Coordinate X="1" Y="b"/></Coordinates></Annotation></Annotations></ASAP_Annotations>"""
NAME = st.text(
    string.ascii_letters + string.digits + "新月体形成 _-.", min_size=1, max_size=12
).map(lambda text: f"n{text.strip()}")
COORDINATE = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


def flat(points):
    """Return whether an outline bounds no area that a reader takes."""
    ring = Polygon(points)
    return make_valid(ring).area <= 1e-5 * ring.length**2


@st.composite
def region_lists(draw, *, with_slides=False):
    names = draw(st.lists(NAME, min_size=1, max_size=5, unique_by=str.casefold))
    regions = []
    for name in names:
        points = draw(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=8))
        if len(points) > 3 and points[0] == points[-1]:
            points = points[:-1]
            if len(points) < 3 or points[0] == points[-1]:
                points = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
        if flat(points):
            points = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]
        labels = tuple(draw(st.lists(NAME, max_size=3, unique=True)))
        slide_id = draw(st.none() | NAME) if with_slides else None
        regions.append(Region(name, tuple(points), labels, slide_id))
    return regions


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [
        (".geojson", "geojson"),
        (".json", "coco"),
        (".xml", "asap"),
        (".xml", "imagescope"),
        (".csv", "csv"),
    ],
)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_format_reads_back_equal(tmp_path, suffix, file_format, data):
    regions = data.draw(region_lists(with_slides=file_format in {"coco", "csv"}))
    path = tmp_path / f"regions{suffix}"
    write_regions(regions, path, file_format=file_format)
    read = read_regions(path)
    if file_format == "imagescope":  # regions come layer by layer
        read, regions = (
            sorted(each, key=lambda region: region.region_id) for each in (read, regions)
        )
    assert read == list(regions)


def test_qupath_coordinates_count_from_the_bounds(tmp_path):
    region = Region("g1", ((1000.5, 2000.0), (1100.0, 2000.0), (1050.0, 2100.0)))
    path = tmp_path / "r.geojson"
    write_regions([region], path, bounds_offset=(1000.0, 2000.0))
    ring = json.loads(path.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == [0.5, 0.0]
    assert read_regions(path, bounds_offset=(1000.0, 2000.0)) == [region]


def test_duplicate_ids_are_refused(tmp_path):
    region = Region("g1", ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(RegionError, match="'g1' is given twice"):
        write_regions([region, region], tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("r.txt", "x", "must end in"),
        ("r.geojson", "", "empty"),
        ("r.geojson", "{", "not valid JSON.*line 1"),
        ("r.geojson", "7", "neither a GeoJSON"),
        ("r.geojson", '[{"geometry": {"type": "Circle"}}]', "feature 1.*Circle"),
        ("r.geojson", '[{"geometry": {"type": "Polygon", "coordinates": []}}]', "feature 1"),
        ("r.geojson", POLYGON % '[[0,0],[1,"a"],[1,1]]', "feature 1.*pair of numbers"),
        ("r.geojson", POLYGON % "[[0,0],[1,NaN],[1,1]]", "feature 1.*finite"),
        ("r.geojson", POLYGON % "[[0,0],[1,1]]", "needs 3"),
        ("r.xml", "<Annotations>", "not valid XML"),
        ("r.xml", "<other/>", "neither ImageScope"),
        ("r.xml", '<!DOCTYPE a [<!ENTITY b "c">]><Annotations>&b;</Annotations>', "refused"),
        ("r.xml", IMAGESCOPE, "region 1 of layer 1"),
        ("r.xml", ASAP, "annotation 1 .a."),
        ("r.json", '{"images": [], "annotations": [{"image_id": 1}]}', "no image 1"),
        ("r.csv", "a,b\n1,2\n", "needs the columns"),
        ("r.csv", "x,y,width,height\n1,2,3,x\n", "line 2"),
        ("r.csv", "x,y,width,height\n1,2,3,0\n", "line 2.*above 0"),
        ("r.csv", "polygon\n1 2 3\n", "line 2"),
    ],
)
def test_a_malformed_file_is_refused_by_name_and_feature(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(RegionError, match=reason) as caught:
        read_regions(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["missing", "r.txt", "r.geojson"])
def test_a_mistyped_path_is_told_whatever_its_suffix(tmp_path, name):
    with pytest.raises(RegionError, match="no such") as caught:
        read_regions(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


RING = "[[%s,0],[9,0],[9,9]]"
ASAP_ONE = """<Annotation Name="%s"><Coordinates><Coordinate X="%s" Y="0"/>
<Coordinate X="9" Y="0"/><Coordinate X="9" Y="9"/></Coordinates></Annotation>"""
IMAGESCOPE_ONE = """<Region DisplayId="%s"><Vertices><Vertex X="%s" Y="0"/>
<Vertex X="9" Y="0"/><Vertex X="9" Y="9"/></Vertices></Region>"""


def _two_regions(file_format: str, x: str) -> str:
    """Return a file with one valid region, and one with the coordinate `x`."""
    if file_format == "geojson":
        features = [
            f'{{"geometry": {{"type": "Polygon", "coordinates": [{RING % value}]}}, '
            f'"properties": {{"name": "{name}"}}}}'
            for name, value in (("good", "0"), ("bad", x))
        ]
        return f"[{','.join(features)}]"
    one = ASAP_ONE if file_format == "asap" else IMAGESCOPE_ONE
    both = one % ("good", "0") + one % ("bad", x)
    if file_format == "asap":
        return f"<ASAP_Annotations><Annotations>{both}</Annotations></ASAP_Annotations>"
    return f"<Annotations><Annotation><Regions>{both}</Regions></Annotation></Annotations>"


@pytest.mark.parametrize(
    ("name", "file_format", "x"),
    [
        ("r.geojson", "geojson", "NaN"),
        ("r.geojson", "geojson", "1e999"),
        ("r.xml", "asap", "nan"),
        ("r.xml", "imagescope", "inf"),
    ],
)
def test_a_region_that_is_not_finite_does_not_hide_the_others(tmp_path, name, file_format, x):
    path = tmp_path / name
    path.write_text(_two_regions(file_format, x))
    invalid = []
    assert [one.region_id for one in read_regions(path, invalid=invalid)] == ["good"]
    assert [one.region_id for one in invalid] == ["bad"]
    assert "not finite" in invalid[0].reason
    with pytest.raises(RegionError, match="not finite"):
        read_regions(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RegionError, match="no such region file"):
        read_regions(tmp_path / "none.geojson")


def test_a_feature_without_area_is_skipped_with_a_warning(tmp_path, caplog):
    path = tmp_path / "r.geojson"
    features = [
        {"geometry": {"type": "Point", "coordinates": [1, 2]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 1], [0, 0]]]}},
    ]
    path.write_text(json.dumps(features))
    with caplog.at_level(logging.WARNING):
        assert [region.region_id for region in read_regions(path)] == ["2"]
    assert "(feature 1)" in caplog.text
