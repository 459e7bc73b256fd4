"""Cut one crop of a slide to an image file: the unit of work of ``extract``.

Runs in worker processes, so it imports no tables and no taxonomy. Each process keeps the slide it
last cut from open.
"""

from dataclasses import dataclass
from pathlib import Path

from glomerulab.errors import SlideError
from glomerulab.geometry import Box
from glomerulab.images import write_image
from glomerulab.runtime.files import make_folder
from glomerulab.slides.slide import Slide, open_slide

__all__ = ["CropTask", "cut_crop"]


@dataclass(frozen=True, slots=True)
class CropTask:
    """One crop to be cut."""

    slide_path: Path
    mpp_override: float | None
    box: Box
    """In level-0 pixels, margin included; may leave the slide."""
    mpp: float
    """Wanted micrometres per pixel."""
    image_path: Path
    """Where the crop goes; ``.png`` or ``.jpg``."""


def cut_crop(task: CropTask) -> bool:
    """Cut a crop, unless it is there already.

    Parameters
    ----------
    task : CropTask

    Returns
    -------
    bool
        Whether it was cut now. A crop that is there is whole, since crops appear by renaming.

    Raises
    ------
    SlideError
        If the slide cannot be read there.
    """
    if task.image_path.exists():
        return False
    slide = _open.slide_for(task.slide_path, task.mpp_override)
    try:
        pixels = slide.read_region(task.box, mpp=task.mpp)
    except SlideError:
        # OpenSlide answers every later read of a failed handle with the same error.
        _open.close()
        raise
    make_folder(task.image_path.parent)
    write_image(pixels, task.image_path)
    return True


class _LastSlide:
    """The slide this process last cut from; regions come slide by slide."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] | None = None
        self._slide: Slide | None = None

    def slide_for(self, path: Path, mpp_override: float | None) -> Slide:
        """Return the open slide, closing the one before, or the same one if it was replaced."""
        key = (path, mpp_override, *_version(path))
        if self._slide is None or self._key != key:
            self.close()
            self._slide = open_slide(path, mpp_override=mpp_override)
            self._key = key
        return self._slide

    def close(self) -> None:
        """Close what is open."""
        if self._slide is not None:
            self._slide.close()
        self._slide, self._key = None, None


def _version(path: Path) -> tuple[int, ...]:
    """Tell a file from the one that stood there before; nothing for one that is missing."""
    try:
        state = path.stat()
    except OSError:
        return ()  # opening it says why
    return state.st_ino, state.st_size, state.st_mtime_ns


_open = _LastSlide()
