"""Pictures of a case report: crops with their outline, and slides with their glomeruli."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case import Case
from glomerulab.cases.case_folder import SlideFacts
from glomerulab.errors import ImageFileError
from glomerulab.geometry import Point
from glomerulab.images import image_size
from glomerulab.reports.case.view import ImageRow
from glomerulab.reports.html import jpeg_uri, picture_bytes, thumbnail_uri

CROP_PX = 256
"""Of a crop in print."""
NATIVE_PX = 2048
"""Of a crop on a page, where it can be enlarged to its own pixels; a longer one is made smaller."""
MAP_PX = 1600


@dataclass(frozen=True)
class CropPicture:
    """A crop and its outline, in the crop's own pixels."""

    uri: str | None
    width: int = 1
    height: int = 1
    outline: tuple[Point, ...] = ()
    mpp: float | None = None
    """Micrometres per pixel of the crop; None if unknown."""
    problem: str = ""
    """Why the file cannot be shown; empty if the call has no picture."""

    @property
    def points(self) -> str:
        """The outline as SVG writes it."""
        return svg_points(self.outline)


@dataclass(frozen=True)
class MapMark:
    """One glomerulus on a map, in level-0 pixels."""

    number: int
    name: str
    outline: tuple[Point, ...]
    x: int
    y: int
    """Of its number, right of the outline at half its height."""
    colour: str
    is_referred: bool

    @property
    def points(self) -> str:
        """The outline as SVG writes it."""
        return svg_points(self.outline)


@dataclass(frozen=True)
class SlideMap:
    """A slide with its glomeruli; sizes are in level-0 pixels."""

    slide_id: str
    uri: str
    width: int
    height: int
    mpp: float | None
    stroke: int
    text: int
    marks: tuple[MapMark, ...]


UriOf = Callable[[Path, int], str]
"""Returns the address of an image file as a JPEG whose longer side has at most so many pixels."""


def data_uri(path: Path, size_px: int) -> str:
    """Return an image as data, for a page that stands alone."""
    return jpeg_uri(picture_bytes(path, size_px=size_px))


def crop_picture(call: GlomerulusCall, folder: Path, uri_of: UriOf = data_uri) -> CropPicture:
    """Return the picture of a crop, or why it cannot be shown."""
    if call.image_path is None:
        return CropPicture(None)
    path = folder / call.image_path
    try:
        width, height = image_size(path)
        uri = uri_of(path, NATIVE_PX)
    except ImageFileError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        problem = "its file is no longer there" if is_missing else "its file cannot be read"
        return CropPicture(None, problem=problem)
    outline: tuple[Point, ...] = ()
    if call.box is not None and call.outline:
        box, scale = call.box, width / call.box.width
        outline = tuple(((x - box.x) * scale, (y - box.y) * scale) for x, y in call.outline)
    return CropPicture(uri, width, height, outline, call.mpp)


def shows_maps(case: Case) -> bool:
    """Return whether maps are shown: not those of a model whose maps failed their tests."""
    return case.facts.map_test != "failed"


def saliency_uri(call: GlomerulusCall, folder: Path, uri_of: UriOf = data_uri) -> str:
    """Return the saliency picture as an address; empty if there is none or it cannot be read."""
    if call.saliency_path is None:
        return ""
    try:
        return uri_of(folder / call.saliency_path, NATIVE_PX)
    except ImageFileError:  # optional, beside the crop
        return ""


def map_uri(path: Path, size_px: int) -> str:
    """Return a slide's overview as data."""
    return thumbnail_uri(path, size_px=size_px)


def slide_map(
    slide: SlideFacts, images: Sequence[ImageRow], folder: Path, uri_of: UriOf = map_uri
) -> SlideMap | None:
    """Return the map of a slide; None if its picture is missing or cannot be read."""
    if slide.map_path is None:
        return None
    try:
        uri = uri_of(folder / slide.map_path, MAP_PX)
    except ImageFileError:  # optional
        return None
    longer = max(slide.width, slide.height)
    marks = [mark for image in images if (mark := _mark(image, slide.slide_id)) is not None]
    return SlideMap(
        slide.slide_id,
        uri,
        slide.width,
        slide.height,
        slide.mpp,
        stroke=max(longer // 220, 1),
        text=max(longer // 42, 6),
        marks=tuple(marks),
    )


def _mark(image: ImageRow, slide_id: str) -> MapMark | None:
    box = image.call.box
    if image.call.slide_id != slide_id or box is None:
        return None
    outline = tuple(image.call.outline or box.corners())
    return MapMark(
        image.number,
        image.group,
        outline,
        x=round(max(x for x, _ in outline)),
        y=round(box.y + box.height / 2),
        colour=image.colour,
        is_referred=bool(image.review_reasons),
    )


def svg_points(outline: Sequence[Point]) -> str:
    """Write an outline as SVG writes it."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in outline)
