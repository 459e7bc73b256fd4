import logging
from pathlib import Path
from xml.etree.ElementTree import fromstring

from glomerulab.slides.region_asap import parse_asap

FILE = Path("r.xml")


def parse(annotations):
    return parse_asap(
        fromstring(
            f"<ASAP_Annotations><Annotations>{annotations}</Annotations></ASAP_Annotations>"
        ),
        FILE,
    )


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


def test_vertices_come_in_the_order_they_number_themselves():
    (read,) = parse(annotation('Name="a"', [(2, 0, 10), (0, 0, 0), (1, 10, 0)]))
    assert read.polygon == ((0.0, 0.0), (10.0, 0.0), (0.0, 10.0))


def test_dots_are_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert parse(annotation('Name="d" Type="Dot"', [(0, 1, 1)])) == []
    assert "Dot" in caplog.text


def test_names_used_twice_give_way_to_numbers():
    read = parse(annotation('Name="a"', TRIANGLE) * 2)
    assert [each.region_id for each in read] == ["1", "2"]
