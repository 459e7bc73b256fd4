"""The slides that may be looked at, by id: the only way from a request to a slide.

A slide is kept open while it is in use; after an error it is opened anew, since OpenSlide answers
every later read of a failed handle with the same error.
"""

import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import SlideError, UnknownRecordError
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.slide import open_slide
from glomerulab.slides.tiles import TilePyramid

__all__ = ["SlideCache"]

MAX_OPEN = 8
THUMBNAIL_PX = 480


class SlideCache:
    """Slides by key, the last few of them open; safe to use from several threads.

    Parameters
    ----------
    place : Path, optional
        A slide, a folder of slides, or a slides table; None for a study without slides.
    """

    def __init__(self, place: Path | None = None) -> None:
        self.place = place
        self._entries: dict[str, SlideEntry] = {}
        self._open: OrderedDict[str, TilePyramid] = OrderedDict()
        self._lock = threading.Lock()
        if place is not None:
            self._look()

    def entries(self) -> list[SlideEntry]:
        """Return the slides there are now, by id; new ones are found."""
        if self.place is not None:
            self._look()
        return sorted(self._entries.values(), key=lambda entry: entry.slide_id)

    def entry(self, key: str) -> SlideEntry:
        """Return what is known of a slide.

        Parameters
        ----------
        key : str
            Of `hashed_name`.

        Returns
        -------
        SlideEntry

        Raises
        ------
        UnknownRecordError
            If no slide is called so.
        """
        found = self._entries.get(key)
        if found is None:
            raise UnknownRecordError("there is no such slide")
        return found

    def pyramid(self, key: str) -> TilePyramid:
        """Return the open tiles of a slide.

        Parameters
        ----------
        key : str

        Returns
        -------
        TilePyramid

        Raises
        ------
        UnknownRecordError
            If no slide is called so.
        SlideError
            If it cannot be opened.
        """
        entry = self.entry(key)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            pyramid = TilePyramid(open_slide(entry.path, mpp_override=entry.mpp))
            self._open[key] = pyramid
            # Not closed, only let go: another thread may be reading a tile of it.
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return pyramid

    def tile(self, key: str, level: int, column: int, row: int) -> bytes:
        """Read a tile as JPEG.

        Parameters
        ----------
        key : str
        level, column, row : int
            As for `TilePyramid.tile_jpeg`.

        Returns
        -------
        bytes

        Raises
        ------
        UnknownRecordError
            If there is no such slide or tile.
        SlideError
            If it cannot be read; the slide is opened anew at the next request.
        """
        pyramid = self.pyramid(key)
        try:
            return pyramid.tile_jpeg(level, column, row)
        except ValueError as error:
            raise UnknownRecordError("there is no such tile") from error
        except SlideError:
            with self._lock:
                self._open.pop(key, None)
            raise

    def thumbnail(self, key: str) -> bytes:
        """Return a small picture of a slide's tissue as JPEG; never its label or macro image.

        Parameters
        ----------
        key : str

        Returns
        -------
        bytes

        Raises
        ------
        UnknownRecordError
            If no slide is called so.
        SlideError
            If it cannot be read.
        """
        try:
            pixels = self.pyramid(key).slide.thumbnail(THUMBNAIL_PX)
        except SlideError:
            with self._lock:
                self._open.pop(key, None)
            raise
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=85)
        return stream.getvalue()

    def _look(self) -> None:
        assert self.place is not None
        self._entries = {hashed_name(entry.slide_id): entry for entry in read_slides(self.place)}
