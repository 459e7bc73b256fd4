"""Cut one crop of a slide to an image file: the unit of work of ``extract``.

It runs in worker processes, so it imports no tables and no taxonomy. Each thread keeps its last
slide open, since crops are ordered by slide.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glomerulab.errors import SlideError
from glomerulab.geometry import Box, Point
from glomerulab.images import RgbImage, write_image
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.parallel import Outcome, map_outcomes
from glomerulab.slides.regions.polygons import filled
from glomerulab.slides.slide import Slide, open_slide

__all__ = ["CropTask", "close_current_slide", "current_slide", "cut_crop", "cut_crops"]


@dataclass(frozen=True, slots=True)
class CropTask:
    """One crop to be cut."""

    slide_path: Path
    mpp_override: float | None
    box: Box
    """In level-0 pixels, margin included; may reach beyond the slide."""
    mpp: float
    """Wanted micrometres per pixel."""
    image_path: Path
    """``.png`` or ``.jpg``."""
    mask_path: Path | None = None
    """``.png``, white inside the outline."""
    rings: tuple[tuple[Point, ...], ...] = ()
    """The outline of the mask and its holes, in level-0 pixels."""


def cut_crop(task: CropTask) -> bool:
    """Cut a crop and its mask, and return True; return False if the files exist.

    An existing file is complete, since crops are written atomically.

    Raises
    ------
    SlideError
        If the slide cannot be read there.
    """
    if task.image_path.exists() and (task.mask_path is None or task.mask_path.exists()):
        return False
    slide = current_slide(task.slide_path, mpp_override=task.mpp_override)
    try:
        pixels = slide.read_region(task.box, mpp=task.mpp)
    except SlideError:
        # After an error, every later read of an OpenSlide handle fails with the same error.
        close_current_slide()
        raise
    make_folder(task.image_path.parent)
    write_image(pixels, task.image_path)
    if task.mask_path is not None:
        make_folder(task.mask_path.parent)
        write_image(crop_mask(task, pixels.shape[:2]), task.mask_path)
    return True


def crop_mask(task: CropTask, shape: tuple[int, ...]) -> RgbImage:
    """Draw the outline of a crop, white on black; a pixel is white if its middle is inside."""
    box, (height, width) = task.box, shape
    mask = np.zeros((height, width, 3), np.uint8)
    step = (box.width / width, box.height / height)
    place, inside = filled(task.rings, corner=(box.x, box.y), step=step, shape=shape)
    mask[place][inside] = 255
    return mask


def cut_crops(tasks: Sequence[CropTask]) -> list[Outcome[CropTask, bool]]:
    """Cut the crops of one slide in a worker process, each as `cut_crop`."""
    try:
        return list(map_outcomes(cut_crop, tasks))
    finally:
        close_current_slide()


def current_slide(path: Path, *, mpp_override: float | None = None) -> Slide:
    """Return the slide that this thread has open, or open this one in its place.

    `cut_crop` uses the same slide: one that is inspected before it is cut is opened once. A file
    that was replaced since is opened again. Do not close the slide; after a failed read, call
    `close_current_slide`.
    """
    key = (path, mpp_override, *_version(path))
    if _current.slide is None or _current.key != key:
        close_current_slide()
        _current.slide = open_slide(path, mpp_override=mpp_override)
        _current.key = key
    return _current.slide


def close_current_slide() -> None:
    """Close the slide that this thread has open, if there is one."""
    if _current.slide is not None:
        _current.slide.close()
    _current.slide, _current.key = None, None


class _Current(threading.local):
    slide: Slide | None = None
    key: tuple[object, ...] | None = None


def _version(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced; empty for a missing file."""
    try:
        state = path.stat()
    except OSError:
        return ()  # opening it raises the error
    return state.st_ino, state.st_size, state.st_mtime_ns


_current = _Current()
