"""Open slides by key; requests reach slides only through this cache."""

import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from glomerulab.cohort.slides_table import SlideEntry, read_slides
from glomerulab.errors import MissingMppError, SlideError, UnknownRecordError
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.scale import ScaleWarning
from glomerulab.slides.slide import open_slide
from glomerulab.slides.tiles import TilePyramid

MAX_OPEN = 8
THUMBNAIL_PX = 480


class SlideCache:
    """Slides by key, the most recently used of them open; safe to use from several threads.

    The key is the `hashed_name` of a slide's id: it reveals neither a path nor a patient's name.

    A slide that failed to read is opened again at the next request, because OpenSlide repeats the
    error of a failed handle for every later read.

    Parameters
    ----------
    source : Path, optional
        A slide, a folder of slides, or a slides table; None for a study without slides.
    """

    def __init__(self, source: Path | None = None) -> None:
        self.source = source
        self._entries: dict[str, SlideEntry] = {}
        self._open: OrderedDict[str, TilePyramid] = OrderedDict()
        self._lock = threading.Lock()
        self._scan()

    def entries(self) -> list[SlideEntry]:
        """Return the slides that exist now, by id."""
        self._scan()
        return sorted(self._entries.values(), key=lambda entry: entry.slide_id)

    def entry(self, key: str) -> SlideEntry:
        """Return the entry of a slide."""
        found = self._entries.get(key)
        if found is None:
            raise UnknownRecordError("there is no such slide; choose one of the list of slides")
        return found

    def pyramid(self, key: str) -> TilePyramid:
        """Return the open tile pyramid of a slide."""
        entry = self.entry(key)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            pyramid = TilePyramid(open_slide(entry.path, mpp_override=entry.mpp))
            self._open[key] = pyramid
            # Dropped without closing: another thread may be reading a tile of it.
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
            return pyramid

    def scale_warnings(self, key: str) -> list[ScaleWarning]:
        """Return the contradictions about the scale of a slide; none if it has no scale."""
        try:
            return self.pyramid(key).slide.scale_warnings
        except MissingMppError:
            return []

    def tile(self, key: str, level: int, column: int, row: int) -> bytes:
        """Return a tile as JPEG; arguments as for `TilePyramid.tile_jpeg`."""
        pyramid = self.pyramid(key)
        try:
            return pyramid.tile_jpeg(level, column, row)
        except ValueError as error:
            raise UnknownRecordError("the slide has no such tile") from error
        except SlideError:
            self._discard(key)
            raise

    def thumbnail(self, key: str) -> bytes:
        """Return a small image of the tissue as JPEG, never the label or macro image."""
        try:
            pixels = self.pyramid(key).slide.thumbnail(THUMBNAIL_PX)
        except SlideError:
            self._discard(key)
            raise
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="JPEG", quality=85)
        return stream.getvalue()

    def _discard(self, key: str) -> None:
        with self._lock:
            self._open.pop(key, None)

    def _scan(self) -> None:
        if self.source is not None:
            entries = read_slides(self.source)
            self._entries = {hashed_name(entry.slide_id): entry for entry in entries}
