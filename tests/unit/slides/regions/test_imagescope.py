import logging
from xml.etree.ElementTree import fromstring

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.features import RegionOptions, SlideFrame
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.regions.imagescope import parse_imagescope, render_imagescope
from glomerulab.slides.regions.selection import select_regions
from tests.support.region_files import regions_of


def parse(regions, layer='Id="1" Name="Crescent"', attributes=""):
    inside = f"{attributes}<Regions>{regions}</Regions>"
    text = f"<Annotations><Annotation {layer}>{inside}</Annotation></Annotations>"
    return regions_of(parse_imagescope(fromstring(text)))


def region(points, **attributes):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    attributes = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return f"<Region {attributes}><Vertices>{vertices}</Vertices></Region>"


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


def test_rulers_are_skipped():
    assert parse(region([(0, 0), (5, 5)], Type=4)) == []


def test_ids_that_start_anew_in_each_layer_stay_apart():
    one = f'<Annotation Id="1"><Regions>{region(TRIANGLE, Id=1)}</Regions></Annotation>'
    two = f'<Annotation Id="2"><Regions>{region(TRIANGLE, Id=1)}</Regions></Annotation>'
    read = regions_of(parse_imagescope(fromstring(f"<Annotations>{one}{two}</Annotations>")))
    assert [each.region_id for each in read] == ["1-1", "2-1"]


def test_a_unique_display_id_is_the_id():
    (read,) = parse(region(TRIANGLE, DisplayId="g9"))
    assert read.region_id == "g9"


AS_IMAGESCOPE_WRITES = """<?xml version="1.0" encoding="UTF-8"?>
<Annotations MicronsPerPixel="0.499000">
 <Annotation Id="1" Name="" ReadOnly="0" Type="4" LineColor="65280" Visible="1" Selected="1"
  MarkupImagePath="" MacroName="">
  <Attributes><Attribute Name="Description" Id="0" Value="Glomerulus"/></Attributes>
  <Regions>
   <RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>
   </RegionAttributeHeaders>
   <Region Id="1" Type="0" Zoom="0.05" Selected="0" ImageLocation="" ImageFocus="-1" Length="40.0"
    Area="100.0" LengthMicrons="20.0" AreaMicrons="25.0" Text="FSG" NegativeROA="0"
    InputRegionId="0" Analyze="1" DisplayId="1">
    <Attributes/><Vertices><Vertex X="10" Y="20" Z="0"/><Vertex X="20" Y="20" Z="0"/>
    <Vertex X="20" Y="30" Z="0"/></Vertices></Region>
   <Region Id="2" Type="0" NegativeROA="1" Text="" DisplayId="2">
    <Attributes/><Vertices><Vertex X="12" Y="21" Z="0"/><Vertex X="14" Y="21" Z="0"/>
    <Vertex X="14" Y="23" Z="0"/></Vertices></Region>
  </Regions>
  <Plots/>
 </Annotation>
</Annotations>"""


def test_a_file_that_imagescope_wrote_gives_its_region_and_no_hole(tmp_path, caplog):
    path = tmp_path / "slide.xml"
    path.write_text(AS_IMAGESCOPE_WRITES, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        (read,) = read_regions(path)
    assert (read.region_id, read.labels) == ("1", ("Glomerulus", "FSG"))
    assert read.polygon == ((10.0, 20.0), (20.0, 20.0), (20.0, 30.0))
    assert "Negative" in caplog.text
    assert "region 2 of layer 1" in caplog.text


def test_regions_keep_their_order_when_layers_alternate():
    corners = ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0))
    regions = [Region(f"g{i}", corners, ("cgn",) if i % 2 else ("fsg",)) for i in range(4)]
    assert regions_of(parse_imagescope(fromstring(render_imagescope(regions)))) == regions


def test_a_label_that_would_be_read_as_two_cannot_be_written():
    region = Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0)), ("grade: 2",))
    with pytest.raises(RegionError, match="'grade: 2'"):
        render_imagescope([region])


DRAWN = Region.from_box("1", Box(100, 100, 200, 200))


@pytest.mark.parametrize(
    ("stated", "n_regions"), [("1.0", 1), ("1.01", 1), ("0", 1), ("", 1), ("x", 1), ("0.25", 0)]
)
def test_a_file_of_another_scale_is_refused_with_the_option(stated, n_regions):
    root = fromstring(render_imagescope([DRAWN]))
    root.set("MicronsPerPixel", stated)
    frame = SlideFrame((900, 900), (0.0, 0.0), (1.0, 1.0), (1.0, 1.0))
    found = select_regions(tuple(parse_imagescope(root)), frame, RegionOptions())
    assert len(found.regions) == n_regions
    assert all("--drawn-mpp 0.25" in one.reason for one in found.invalid)
    options = RegionOptions(drawn_mpp=0.25)
    (region,) = select_regions(tuple(parse_imagescope(root)), frame, options).regions
    assert region.box().width == DRAWN.box().width / 4
