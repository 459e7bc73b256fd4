"""The pictures of a case report: crops with their outline, slides with every glomerulus."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case_folder import SlideFacts
from glomerulab.errors import ImageFileError
from glomerulab.geometry import Box, Point
from glomerulab.images import image_size
from glomerulab.reports.case.view import GlomerulusRow
from glomerulab.reports.html import thumbnail_uri

__all__ = ["MapMark", "Picture", "SlideMap", "crop_picture", "saliency_uri", "slide_map"]

CROP_PX = 256
MAP_PX = 1600


@dataclass(frozen=True)
class Picture:
    """A crop, in its own pixels."""

    uri: str | None
    width: int = 1
    height: int = 1
    points: str = ""
    """The region's outline, as SVG writes it."""
    stroke: float = 1.0
    reason: Literal["", "picture_gone", "picture_unreadable"] = ""
    """Why the image cannot be shown, by its phrase in `words`; empty where there never was one."""


@dataclass(frozen=True)
class MapMark:
    """One glomerulus on a map."""

    number: int
    name: str
    points: str
    x: int
    y: int
    colour: str
    is_referred: bool


@dataclass(frozen=True)
class SlideMap:
    """A slide with its glomeruli; marks are in level-0 pixels."""

    slide_id: str
    uri: str
    width: int
    height: int
    stroke: int
    text: int
    marks: tuple[MapMark, ...]


def crop_picture(call: GlomerulusCall, folder: Path) -> Picture:
    """Return the picture of a crop.

    Parameters
    ----------
    call : GlomerulusCall
    folder : Path
        Of the predictions.

    Returns
    -------
    Picture
        Without an image, and with the reason, where the file cannot be read.
    """
    if call.image_path is None:
        return Picture(None)
    path = folder / call.image_path
    try:
        width, height = image_size(path)
        uri = thumbnail_uri(path, size_px=CROP_PX)
    except ImageFileError as error:
        is_gone = isinstance(error.__cause__, FileNotFoundError)
        return Picture(None, reason="picture_gone" if is_gone else "picture_unreadable")
    points = ""
    if call.box is not None and call.outline:
        scale = width / call.box.width
        points = _points(
            [((x - call.box.x) * scale, (y - call.box.y) * scale) for x, y in call.outline]
        )
    return Picture(uri, width, height, points, stroke=round(max(width, height) / 110, 1))


def saliency_uri(call: GlomerulusCall, folder: Path) -> str:
    """Return the picture of where the network looked; empty where there is none.

    Parameters
    ----------
    call : GlomerulusCall
    folder : Path
        Of the predictions.

    Returns
    -------
    str
    """
    if call.saliency_path is None:
        return ""
    try:
        return thumbnail_uri(folder / call.saliency_path, size_px=CROP_PX)
    except ImageFileError:  # the crop stands beside it; a report does not fail for this
        return ""


def slide_map(slide: SlideFacts, shown: Sequence[GlomerulusRow], folder: Path) -> SlideMap | None:
    """Return the map of a slide, or None where its picture is not there or cannot be read.

    Parameters
    ----------
    slide : SlideFacts
    shown : sequence of Shown
        Of the whole case.
    folder : Path
        Of the predictions.

    Returns
    -------
    SlideMap or None
    """
    if slide.map_path is None:
        return None
    try:
        uri = thumbnail_uri(folder / slide.map_path, size_px=MAP_PX)
    except ImageFileError:  # a map is an extra; a report does not fail for it
        return None
    longer = max(slide.width, slide.height)
    marks = []
    for one in shown:
        box = one.call.box
        if one.call.slide_id != slide.slide_id or box is None:
            continue
        outline = one.call.outline or box.corners()
        x, y = _label_place(outline, box)
        marks.append(
            MapMark(one.number, one.group, _points(outline), x, y, one.colour, bool(one.reasons))
        )
    return SlideMap(
        slide.slide_id,
        uri,
        slide.width,
        slide.height,
        max(longer // 220, 1),
        max(longer // 42, 6),
        tuple(marks),
    )


def _label_place(outline: Sequence[Point], box: Box) -> tuple[int, int]:
    """Return where the number stands: right of the glomerulus, halfway down."""
    return round(max(x for x, _ in outline)), round(box.y + box.height / 2)


def _points(outline: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
