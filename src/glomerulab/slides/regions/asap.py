"""ASAP XML: annotations in groups, vertices in level-0 pixels.

A region's labels are its ``PartOfGroup``; ASAP writes ``None`` for an annotation without a group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element, SubElement, tostring

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.features import Feature, Part
from glomerulab.slides.regions.parsing import (
    format_number,
    join_labels,
    parse_point,
    split_labels,
)

NO_GROUP = "None"
WITHOUT_AREA = {"Dot", "PointSet", "Measurement"}


def parse_asap(root: Element) -> Iterator[Feature]:
    """Yield the annotations of ``<ASAP_Annotations>``."""
    for number, element in enumerate(root.iter("Annotation"), start=1):
        place = f"annotation {number} ({element.get('Name', 'unnamed')})"
        group = element.get("PartOfGroup", NO_GROUP)
        feature = Feature(
            place,
            str(number),
            name=element.get("Name"),
            classes=() if group == NO_GROUP else split_labels(group),
        )
        if element.get("Type", "Polygon") in WITHOUT_AREA:
            yield replace(feature, skipped="no area")
            continue
        try:
            yield replace(feature, parts=(Part(tuple(_points(element, place))),))
        except RegionError as error:
            yield replace(feature, failure=error.message)


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
