import logging
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from glomerulab.geometry import Box
from glomerulab.slides.region_imagescope import parse_imagescope

FILE = Path("r.xml")


def parse(regions, layer='Id="1" Name="Crescent"', attributes=""):
    text = f"<Annotations><Annotation {layer}>{attributes}<Regions>{regions}</Regions></Annotation></Annotations>"
    return parse_imagescope(fromstring(text), FILE)


def region(points, **attributes):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    told = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<Region {told}><Vertices>{vertices}</Vertices></Region>"


TRIANGLE = [(0, 0), (10.5, 0), (0, 10)]


def test_the_layer_and_the_text_of_a_region_are_its_labels():
    (read,) = parse(region(TRIANGLE, Id=1, Text="FSG"))
    assert read.labels == ("Crescent", "FSG")
    assert read.polygon == ((0.0, 0.0), (10.5, 0.0), (0.0, 10.0))


def test_the_attributes_of_a_layer_are_labels_too():
    attributes = '<Attributes><Attribute Name="Description" Value="cgn"/></Attributes>'
    (read,) = parse(region(TRIANGLE), layer='Id="1" Name=""', attributes=attributes)
    assert read.labels == ("cgn",)


def test_an_ellipse_is_given_by_two_corners():
    (read,) = parse(region([(10, 20), (30, 60)], Type=2))
    assert read.box() == Box(10, 20, 20, 40)
    assert len(read.polygon) == 64


def test_a_rectangle_is_given_by_two_or_four_corners():
    (two,) = parse(region([(10, 20), (30, 60)], Type=1))
    (four,) = parse(region([(10, 20), (30, 20), (30, 60), (10, 60)], Type=1))
    assert two.box() == four.box() == Box(10, 20, 20, 40)


def test_rulers_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert parse(region([(0, 0), (5, 5)], Type=4)) == []
    assert "ruler" in caplog.text


def test_ids_that_start_anew_in_each_layer_stay_apart():
    one = f'<Annotation Id="1"><Regions>{region(TRIANGLE, Id=1)}</Regions></Annotation>'
    two = f'<Annotation Id="2"><Regions>{region(TRIANGLE, Id=1)}</Regions></Annotation>'
    read = parse_imagescope(fromstring(f"<Annotations>{one}{two}</Annotations>"), FILE)
    assert [each.region_id for each in read] == ["1-1", "2-1"]


@pytest.mark.parametrize("name", ["DisplayId"])
def test_a_unique_display_id_is_the_id(name):
    (read,) = parse(region(TRIANGLE, **{name: "g9"}))
    assert read.region_id == "g9"
