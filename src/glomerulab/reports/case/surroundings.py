"""A glomerulus with its neighbours, read from the slide itself where that is at hand."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from glomerulab.cases.case_folder import SlideFacts
from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import SlideError
from glomerulab.geometry import Box, Point
from glomerulab.reports.case.pictures import svg_points
from glomerulab.reports.case.view import ImageRow
from glomerulab.reports.html import jpeg_uri
from glomerulab.slides.slide import open_slide

__all__ = ["Surroundings"]

TIMES = 6.0
"""Side of the square that is shown, in longer sides of the glomerulus."""
MOST_PX = 1024
JPEG_QUALITY = 85

AddressOf = Callable[[str, Callable[[], bytes]], str]
"""Takes a key and what reads the JPEG; returns the address for the page."""


def data_address(_key: str, read: Callable[[], bytes]) -> str:
    """Return a picture as data, for a page that stands alone."""
    return jpeg_uri(read())


@dataclass(frozen=True)
class Surroundings:
    """The slides of a case, as far as they are at hand.

    Parameters
    ----------
    source : Path
        A slide, a folder of slides, or a slides table.
    address_of : callable, optional
        By default the data of the picture.
    """

    source: Path
    address_of: AddressOf = data_address

    @cached_property
    def _slides(self) -> dict[str, SlideEntry]:
        entries = read_slides(self.source)
        by_file = {one.path.name: one for one in entries}
        return by_file | {one.slide_id: one for one in entries}

    def of(
        self, image: ImageRow, images: Sequence[ImageRow], slide: SlideFacts
    ) -> dict[str, Any] | None:
        """Return what the viewer shows around a glomerulus.

        None if it has no place on a slide, or the slide is not at hand, cannot be read, or has
        another size than the one that was predicted.
        """
        entry = self._slides.get(slide.slide_id) or self._slides.get(slide.file_name)
        box = image.call.box
        if entry is None or box is None or not _is_same(entry, slide):
            return None
        part = _around(box, slide)
        size = _size(part)
        key = f"{entry.path} {entry.path.stat().st_mtime_ns} {part}"
        try:
            address = self.address_of(key, partial(_read, entry, part, size))
        except SlideError:
            return None
        scale = size[0] / part.width
        near = [one for one in images if one.call.slide_id == slide.slide_id and one.call.box]
        marks = [_mark(one, part, scale, is_current=one is image) for one in near]
        return {
            "src": address,
            "width": size[0],
            "mpp": None if slide.mpp is None else slide.mpp / scale,
            "marks": [one for one in marks if one is not None],
            "alt": slide.slide_id,
        }


def _is_same(entry: SlideEntry, slide: SlideFacts) -> bool:
    try:
        with open_slide(entry.path, mpp_override=entry.mpp) as opened:
            return opened.dimensions == (slide.width, slide.height)
    except SlideError:
        return False


def _around(box: Box, slide: SlideFacts) -> Box:
    """Return the square around a box, inside the slide."""
    side = round(TIMES * max(box.width, box.height))
    left = max(0, min(box.x + box.width // 2 - side // 2, slide.width - side))
    upper = max(0, min(box.y + box.height // 2 - side // 2, slide.height - side))
    return Box(left, upper, min(side, slide.width - left), min(side, slide.height - upper))


def _size(part: Box) -> tuple[int, int]:
    """Return width and height of the picture; no larger than the slide's own pixels."""
    scale = min(1.0, MOST_PX / max(part.width, part.height))
    return max(round(part.width * scale), 1), max(round(part.height * scale), 1)


def _read(entry: SlideEntry, part: Box, size: tuple[int, int]) -> bytes:
    with open_slide(entry.path, mpp_override=entry.mpp) as slide:
        downsample = part.width / size[0], part.height / size[1]
        pixels = slide.read_grid((part.x, part.y), size, downsample=downsample)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _mark(image: ImageRow, part: Box, scale: float, *, is_current: bool) -> dict[str, Any] | None:
    """Return the outline of a glomerulus in pixels of the picture, if it is on it."""
    box = image.call.box
    if box is None or not part.intersection_area(box):
        return None
    ring: Sequence[Point] = image.call.outline or box.corners()
    return {
        "points": svg_points([((x - part.x) * scale, (y - part.y) * scale) for x, y in ring]),
        "colour": image.colour,
        "dashed": bool(image.review_reasons),
        "text": str(image.number),
        "current": is_current,
    }
