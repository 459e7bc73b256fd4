"""ASAP XML: annotations in groups, vertices in level-0 pixels.

A region's labels are its ``PartOfGroup``; ASAP writes ``None`` for an annotation without a group.
"""

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.parsing import (
    Parsed,
    Skipped,
    format_number,
    join_labels,
    make_region,
    parse_point,
    split_labels,
    unique_names,
)

NO_GROUP = "None"
WITHOUT_AREA = {"Dot", "PointSet", "Measurement"}


def parse_asap(root: Element) -> Iterator[Parsed]:
    """Yield the annotations of ``<ASAP_Annotations>``, named uniquely or numbered."""
    elements = list(root.iter("Annotation"))
    numbers = [str(number) for number in range(1, len(elements) + 1)]
    ids = unique_names([element.get("Name") for element in elements], numbers)
    for number, region_id, element in zip(numbers, ids, elements, strict=True):
        feature = f"annotation {number} ({element.get('Name', 'unnamed')})"
        kind = element.get("Type", "Polygon")
        points = _points(element, feature)
        if kind in WITHOUT_AREA:
            yield Skipped(f"{feature} is a {kind}, which has no area")
            continue
        group = element.get("PartOfGroup", NO_GROUP)
        labels = () if group == NO_GROUP else split_labels(group)
        yield make_region(region_id, points, labels, feature=feature)


def render_asap(regions: Sequence[Region]) -> str:
    """Return regions as ASAP XML, with one group per set of labels."""
    root = Element("ASAP_Annotations")
    annotations = SubElement(root, "Annotations")
    groups: dict[str, None] = {}
    for region in regions:
        group = _group(region)
        groups.setdefault(group)
        element = SubElement(
            annotations,
            "Annotation",
            Name=region.region_id,
            Type="Polygon",
            PartOfGroup=group,
            Color="#008040",
        )
        coordinates = SubElement(element, "Coordinates")
        for order, (x, y) in enumerate(region.polygon):
            SubElement(
                coordinates, "Coordinate", Order=str(order), X=format_number(x), Y=format_number(y)
            )
    holder = SubElement(root, "AnnotationGroups")
    for group in groups:
        if group != NO_GROUP:
            SubElement(holder, "Group", Name=group, PartOfGroup=NO_GROUP, Color="#008040")
    return tostring(root, encoding="unicode", xml_declaration=True)


def _group(region: Region) -> str:
    if region.labels == (NO_GROUP,):
        raise RegionError(
            f"region {region.region_id!r}: ASAP would read the label {NO_GROUP!r} as no label; "
            "write GeoJSON"
        )
    return join_labels(region) or NO_GROUP


def _points(element: Element, feature: str) -> list[Point]:
    """Return the vertices in the order of their numbers."""
    vertices = list(element.iter("Coordinate"))
    try:
        vertices.sort(key=lambda vertex: float(vertex.get("Order", "0")))
    except ValueError:  # invalid numbers: keep the order of the file
        vertices = list(element.iter("Coordinate"))
    return [parse_point(vertex.get("X"), vertex.get("Y"), feature=feature) for vertex in vertices]
