from xml.etree.ElementTree import fromstring

import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.asap import parse_asap, render_asap
from glomerulab.slides.regions.files import read_regions
from tests.support.region_files import regions_of, select


def parse(annotations):
    text = f"<ASAP_Annotations><Annotations>{annotations}</Annotations></ASAP_Annotations>"
    return regions_of(parse_asap(fromstring(text)))


def annotation(attributes, points):
    coordinates = "".join(
        f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, x, y in points
    )
    return f"<Annotation {attributes}><Coordinates>{coordinates}</Coordinates></Annotation>"


TRIANGLE = [(0, 0, 0), (1, 10, 0), (2, 0, 10)]


def test_the_group_is_the_label_and_none_is_no_group():
    first, second = parse(
        annotation('Name="a" Type="Polygon" PartOfGroup="cgn: fsg"', TRIANGLE)
        + annotation('Name="b" Type="Spline" PartOfGroup="None"', TRIANGLE)
    )
    assert first.labels == ("cgn", "fsg")
    assert second.labels == ()


def test_vertices_come_in_the_order_of_their_numbers():
    (read,) = parse(annotation('Name="a"', [(2, 0, 10), (0, 0, 0), (1, 10, 0)]))
    assert read.polygon == ((0.0, 0.0), (10.0, 0.0), (0.0, 10.0))


def test_dots_are_skipped():
    dot = annotation('Type="Dot"', [(0, 1, 1)])
    found = select(parse_asap(fromstring(f"<ASAP_Annotations>{dot}</ASAP_Annotations>")))
    assert (found.regions, found.invalid) == ([], [])
    assert "annotation 1" in found.notes[0].en


def test_names_used_twice_are_replaced_by_numbers():
    read = parse(annotation('Name="a"', TRIANGLE) * 2)
    assert [each.region_id for each in read] == ["1", "2"]


AS_ASAP_WRITES = """<?xml version="1.0"?>
<ASAP_Annotations>
	<Annotations>
		<Annotation Name="Annotation 0" Type="Rectangle" PartOfGroup="Crescent" Color="#F4FA58">
			<Coordinates>
				<Coordinate Order="0" X="1020.5" Y="2040.25" />
				<Coordinate Order="1" X="1220.5" Y="2040.25" />
				<Coordinate Order="2" X="1220.5" Y="2140.25" />
				<Coordinate Order="3" X="1020.5" Y="2140.25" />
			</Coordinates>
		</Annotation>
	</Annotations>
	<AnnotationGroups>
		<Group Name="Crescent" PartOfGroup="None" Color="#64FE2E"><Attributes /></Group>
	</AnnotationGroups>
</ASAP_Annotations>"""


def test_a_file_that_asap_wrote_is_read(tmp_path):
    path = tmp_path / "slide.xml"
    path.write_text(AS_ASAP_WRITES, encoding="utf-8")
    (read,) = read_regions(path)
    assert (read.region_id, read.labels) == ("Annotation 0", ("Crescent",))
    assert read.box() == Box(1020, 2040, 201, 101)


def test_every_group_in_use_is_declared_once():
    corners = ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0))
    labels = [("cgn", "fsg"), (), ("cgn",), ("cgn", "fsg")]
    regions = [Region(f"g{i}", corners, each) for i, each in enumerate(labels)]
    root = fromstring(render_asap(regions))
    assert [group.get("Name") for group in root.iter("Group")] == ["cgn: fsg", "cgn"]
    assert regions_of(parse_asap(root)) == regions


@pytest.mark.parametrize("label", ["grade:2", "None", " padded", ""])
def test_a_label_that_asap_would_read_back_differently_cannot_be_written(label):
    region = Region("g", ((0.0, 0.0), (5.0, 0.0), (0.0, 5.0)), (label,))
    with pytest.raises(RegionError, match=repr(label)):
        render_asap([region])
