"""ASAP XML: annotations in groups, vertices in level-0 pixels.

A region's labels are its ``PartOfGroup``; ``None`` is ASAP's word for no group.
"""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.parsing import (
    BrokenRegion,
    join_labels,
    leave_out,
    make_region,
    parse_point,
    shown_number,
    split_labels,
    unique_names,
)

__all__ = ["parse_asap", "render_asap"]

NO_GROUP = "None"
WITHOUT_AREA = {"Dot", "PointSet", "Measurement"}


def parse_asap(root: Element, path: Path) -> list[Region | BrokenRegion]:
    """Turn ASAP XML into regions.

    Parameters
    ----------
    root : Element
        ``<ASAP_Annotations>``.
    path : Path
        For the errors.

    Returns
    -------
    list of Region or BrokenRegion
        Called by their name where it is unique, else by their number.
    """
    found = list(root.iter("Annotation"))
    fallbacks = [str(number) for number in range(1, len(found) + 1)]
    names = [element.get("Name") for element in found]
    regions: list[Region | BrokenRegion] = []
    for number, (region_id, element) in enumerate(
        zip(unique_names(names, fallbacks), found, strict=True), start=1
    ):
        where = f"annotation {number} ({element.get('Name', 'unnamed')})"
        kind = element.get("Type", "Polygon")
        points = _points(element, path, where)
        if kind in WITHOUT_AREA:
            leave_out(path, where, kind)
            continue
        group = element.get("PartOfGroup", NO_GROUP)
        labels = () if group == NO_GROUP else split_labels(group)
        regions.append(make_region(region_id, points, labels, feature=where))
    return regions


def render_asap(regions: Sequence[Region]) -> str:
    """Write regions as ASAP XML, with one group per set of labels.

    Parameters
    ----------
    regions : sequence of Region

    Returns
    -------
    str

    Raises
    ------
    RegionError
        If the labels of a region would be read back otherwise.
    """
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
                coordinates, "Coordinate", Order=str(order), X=shown_number(x), Y=shown_number(y)
            )
    holder = SubElement(root, "AnnotationGroups")
    for group in groups:
        if group != NO_GROUP:
            SubElement(holder, "Group", Name=group, PartOfGroup=NO_GROUP, Color="#008040")
    return tostring(root, encoding="unicode", xml_declaration=True)


def _group(region: Region) -> str:
    if region.labels == (NO_GROUP,):
        raise RegionError(
            f"region {region.region_id!r}: the label {NO_GROUP!r} is ASAP's word for no label"
        )
    return join_labels(region) or NO_GROUP


def _points(element: Element, path: Path, where: str) -> list[Point]:
    """Read the vertices in the order they number themselves."""
    vertices = list(element.iter("Coordinate"))
    try:
        vertices.sort(key=lambda vertex: float(vertex.get("Order", "0")))
    except ValueError:
        # An order that is no number orders nothing: the file's own order stands.
        vertices = list(element.iter("Coordinate"))
    return [
        parse_point(vertex.get("X"), vertex.get("Y"), path=path, feature=where)
        for vertex in vertices
    ]
