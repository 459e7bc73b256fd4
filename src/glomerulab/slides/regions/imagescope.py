"""Aperio ImageScope XML: layers (``Annotation``) of regions, vertices in level-0 pixels.

A region's labels are the name and attributes of its layer and its own ``Text``.
"""

import math
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

RECTANGLE, ELLIPSE, ARROW, RULER = "1", "2", "3", "4"
N_ELLIPSE_POINTS = 64


def parse_imagescope(root: Element) -> Iterator[Feature]:
    """Yield the regions of ``<Annotations>``.

    A region is named by its ``DisplayId``, and numbered by the ``Id`` of layer and region.
    """
    drawn_mpp = _mpp(root.get("MicronsPerPixel"))
    for layer_number, layer in enumerate(root.iter("Annotation"), start=1):
        for number, element in enumerate(layer.iter("Region"), start=1):
            place = f"region {number} of layer {layer_number}"
            # Ids start again in each layer of ImageScope's files.
            own = f"{layer.get('Id', layer_number)}-{element.get('Id', number)}"
            feature = Feature(
                place,
                own,
                name=element.get("DisplayId"),
                classes=_labels(layer, element),
                drawn_mpp=drawn_mpp,
            )
            if element.get("Type") in {ARROW, RULER}:
                yield replace(feature, skipped="no area")
            elif element.get("NegativeROA") == "1":
                yield replace(feature, skipped="negative")
            else:
                yield _with_outline(feature, element)


def _mpp(text: str | None) -> float | None:
    """Return the micrometres per pixel of the slide in ImageScope; None where it knew none."""
    try:
        value = float(text or 0)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _with_outline(feature: Feature, element: Element) -> Feature:
    try:
        points = [
            parse_point(vertex.get("X"), vertex.get("Y"), feature=feature.place)
            for vertex in element.iter("Vertex")
        ]
    except RegionError as error:
        return replace(feature, failure=error.message)
    return replace(feature, parts=(Part(tuple(_outline(element.get("Type"), points))),))


def render_imagescope(regions: Sequence[Region]) -> str:
    """Return regions as ImageScope XML; a new layer begins where the labels change."""
    root = Element("Annotations")
    layer = None
    for region in regions:
        name = join_labels(region)
        if layer is None or layer.get("Name") != name:
            layer = _add_layer(root, name)
        holder = layer.find("Regions")
        assert holder is not None
        element = SubElement(
            holder, "Region", Id=str(len(holder) + 1), Type="0", DisplayId=region.region_id
        )
        vertices = SubElement(element, "Vertices")
        for x, y in region.polygon:
            SubElement(vertices, "Vertex", X=format_number(x), Y=format_number(y), Z="0")
    return tostring(root, encoding="unicode", xml_declaration=True)


def _add_layer(root: Element, name: str) -> Element:
    layer = SubElement(
        root, "Annotation", Id=str(len(root) + 1), Name=name, Visible="1", LineColor="65280"
    )
    SubElement(layer, "Regions")
    return layer


def _outline(kind: str | None, points: list[Point]) -> list[Point]:
    """Return the outline of an ellipse or a rectangle, which may be given by two corners."""
    if kind not in {RECTANGLE, ELLIPSE} or len(points) not in {2, 4}:
        return points
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, upper, lower = min(xs), max(xs), min(ys), max(ys)
    if kind == RECTANGLE:
        if len(points) == 4:
            return points
        return [(left, upper), (right, upper), (right, lower), (left, lower)]
    centre, radii = ((left + right) / 2, (upper + lower) / 2), (right - left, lower - upper)
    angles = [2 * math.pi * step / N_ELLIPSE_POINTS for step in range(N_ELLIPSE_POINTS)]
    return [
        (centre[0] + radii[0] / 2 * math.cos(turn), centre[1] + radii[1] / 2 * math.sin(turn))
        for turn in angles
    ]


def _labels(layer: Element, element: Element) -> tuple[str, ...]:
    names = [layer.get("Name")]
    attributes = layer.find("Attributes")
    if attributes is not None:
        # A layer is often left unnamed and described by an attribute; only its value is a class.
        names += [each.get("Value") for each in attributes.iter("Attribute")]
    names.append(element.get("Text"))
    labels = [label for name in names for label in split_labels(name)]
    return tuple(dict.fromkeys(labels))
