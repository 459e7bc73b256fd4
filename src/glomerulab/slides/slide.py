"""A slide: what it says of itself, and its pixels at any micrometres per pixel.

`open_slide` is the one way in, for OpenSlide's formats, DICOM and plain images alike. The mpp is
never guessed: a slide without one raises `MissingMppError` as soon as somebody needs it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from glomerulab.errors import MissingMppError, SlideError
from glomerulab.geometry import Box, Point
from glomerulab.images import RgbImage
from glomerulab.slides.dicom import dicom_files
from glomerulab.slides.image_source import ImageSource
from glomerulab.slides.openslide_source import OpenSlideSource, detect_vendor
from glomerulab.slides.resampling import MAX_READ_PX, PixelSource, White, read_box
from glomerulab.slides.stain_name import stain_of_properties
from glomerulab.slides.white import estimate_white

__all__ = ["MAX_PLAUSIBLE_MPP", "Level", "Slide", "open_slide"]

MAX_PLAUSIBLE_MPP = 40.0
"""A file that states more was given a print resolution by a program, not a scale by a scanner."""

WHITE_SAMPLE_PX = 512
N_WHITE_SAMPLES_PER_SIDE = 8


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid."""

    width: int
    height: int
    downsample: float
    """Factor from this level to level 0."""


def open_slide(path: Path, *, mpp_override: float | None = None) -> "Slide":
    """Open a slide or a plain image.

    Parameters
    ----------
    path : Path
        Anything OpenSlide or Pillow reads; for DICOM one of the files, or their folder.
    mpp_override : float, optional
        Micrometres per pixel of level 0, in place of what the file says.

    Returns
    -------
    Slide
        To be closed, best by a ``with`` block.

    Raises
    ------
    SlideError
        If the file is missing, empty, damaged or in no known format.
    ValueError
        If `mpp_override` is not a positive, finite number.
    """
    if mpp_override is not None and not (math.isfinite(mpp_override) and mpp_override > 0):
        raise ValueError(f"mpp_override must be positive and finite, got {mpp_override}")
    file = _slide_file(path)
    vendor = detect_vendor(file)
    source: PixelSource = ImageSource(file) if vendor is None else OpenSlideSource(file)
    return Slide(path, source, vendor=vendor, mpp_override=mpp_override)


class Slide:
    """An open slide; made by `open_slide`.

    It can be pickled: the copy opens the file again, so that every process has its own handle.

    Parameters
    ----------
    path : Path
        As given to `open_slide`.
    source : PixelSource
        The open file.
    vendor : str or None
        OpenSlide's name of the format; None for a plain image.
    mpp_override : float, optional
        Micrometres per pixel of level 0, in place of what the file says.
    """

    def __init__(
        self,
        path: Path,
        source: PixelSource,
        *,
        vendor: str | None,
        mpp_override: float | None = None,
    ) -> None:
        self.path = path
        self.vendor = vendor
        self._source = source
        self._mpp_override = mpp_override

    def __enter__(self) -> Self:
        """Return the slide itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Reopen by path in the other process."""
        return _reopen, (self.path, self._mpp_override)

    def close(self) -> None:
        """Give the file back."""
        self._source.close()

    @property
    def slide_id(self) -> str:
        """The file's name without its suffix."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def dimensions(self) -> tuple[int, int]:
        """Width and height of level 0, in pixels."""
        return self._source.level_dimensions[0]

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, level 0 first."""
        pairs = zip(self._source.level_dimensions, self._source.level_downsamples, strict=True)
        return tuple(Level(width, height, factor) for (width, height), factor in pairs)

    @cached_property
    def properties(self) -> Mapping[str, str]:
        """Everything the file says of itself, under OpenSlide's names."""
        return self._source.properties

    @property
    def associated_images(self) -> tuple[str, ...]:
        """Names of the images beside the pyramid, such as label and macro."""
        return self._source.associated_images

    @cached_property
    def mpp_xy(self) -> tuple[float, float]:
        """Micrometres per level-0 pixel along x and y.

        Raises
        ------
        MissingMppError
            If neither the file nor `mpp_override` states them, or the file states a print
            resolution (above `MAX_PLAUSIBLE_MPP`).
        """
        if self._mpp_override is not None:
            return self._mpp_override, self._mpp_override
        stated = [_number(self.properties.get(f"openslide.mpp-{axis}")) for axis in "xy"]
        across, down = stated
        if not across or not down:
            raise MissingMppError(
                "does not say its micrometres per pixel; give them with --mpp-override",
                where=str(self.path),
            )
        if max(across, down) > MAX_PLAUSIBLE_MPP:
            raise MissingMppError(
                f"says {across:g} micrometres per pixel, a print resolution and no scan's; "
                "give the true ones with --mpp-override",
                where=str(self.path),
            )
        return across, down

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel, the mean of both axes.

        Raises
        ------
        MissingMppError
            If nobody states them.
        """
        return sum(self.mpp_xy) / 2

    @cached_property
    def objective(self) -> float | None:
        """Power of the objective, if the file says it. For display only, never for scaling."""
        return _number(self.properties.get("openslide.objective-power"))

    @cached_property
    def stain(self) -> str | None:
        """The stain that the file's metadata name (see `stain_of_properties`), or None."""
        return stain_of_properties(self.properties)

    @cached_property
    def bounds(self) -> Box | None:
        """The scanned part of level 0, where the file states it (MIRAX, some others)."""
        names = ("x", "y", "width", "height")
        values = [_number(self.properties.get(f"openslide.bounds-{name}")) for name in names]
        if any(value is None for value in values):
            return None
        x, y, width, height = (round(value) for value in values if value is not None)
        return Box(x, y, width, height) if width > 0 and height > 0 else None

    @property
    def bounds_offset(self) -> Point:
        """What QuPath's coordinates lack to be level-0 pixels: the corner of `bounds`."""
        return (0.0, 0.0) if self.bounds is None else (float(self.bounds.x), float(self.bounds.y))

    @cached_property
    def white(self) -> White:
        """Colour of the empty glass, estimated from the coarsest level.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded.
        """
        return estimate_white(self._sample())

    def read_region(self, box: Box, *, mpp: float | None = None) -> RgbImage:
        """Read a box of the slide.

        Parameters
        ----------
        box : Box
            In level-0 pixels. What leaves the slide is filled with `white`.
        mpp : float, optional
            Wanted micrometres per pixel; None means level-0 pixels as they are.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            At `mpp`, resampled from the best level with antialiasing; unaltered pixels where a
            level has that sampling within a thousandth.

        Raises
        ------
        MissingMppError
            If `mpp` is given and the slide's own is unknown.
        SlideError
            If the pixels cannot be decoded, or would be too many at this mpp.
        ValueError
            If `mpp` is not a positive, finite number.
        """
        if mpp is None:
            downsample = (1.0, 1.0)
        elif not (math.isfinite(mpp) and mpp > 0):
            raise ValueError(f"mpp must be positive and finite, got {mpp}")
        else:
            downsample = (mpp / self.mpp_xy[0], mpp / self.mpp_xy[1])
        return self._read(box, downsample)

    def thumbnail(self, max_side: int = 1024) -> RgbImage:
        """Read the whole slide, small.

        Parameters
        ----------
        max_side : int, default 1024
            Pixels along the longer side; a smaller slide is not enlarged.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)

        Raises
        ------
        SlideError
            If the pixels cannot be decoded.
        ValueError
            If `max_side` is below 1.
        """
        if max_side < 1:
            raise ValueError(f"max_side must be at least 1, got {max_side}")
        factor = max(1.0, max(self.dimensions) / max_side)
        return self._read(Box(0, 0, *self.dimensions), (factor, factor))

    def read_level(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read pixels of one level as they lie in the file, for viewers.

        Parameters
        ----------
        level : int
        corner : tuple of int
            Upper left corner (x, y) in level-0 pixels.
        size : tuple of int
            Width and height in pixels of `level`.

        Returns
        -------
        Image
            RGBA, transparent outside the slide.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded. The slide has to be opened anew after that.
        """
        return self._source.read(level, corner, size)

    def padded_share(self, box: Box) -> float:
        """Return the share of a box that lies outside the slide.

        Parameters
        ----------
        box : Box

        Returns
        -------
        float
            0 inside, 1 if nothing of it is on the slide.
        """
        inside = box.intersection_area(Box(0, 0, *self.dimensions))
        return 1.0 - inside / (box.width * box.height)

    def _read(self, box: Box, downsample: tuple[float, float]) -> RgbImage:
        try:
            return read_box(self._source, box, downsample=downsample, white=lambda: self.white)
        except ValueError as error:
            raise SlideError(
                f"{error}; give a larger mpp or a smaller region", where=str(self.path)
            ) from error

    def _sample(self) -> RgbImage:
        """Pixels from all over the slide, few enough for any slide."""
        coarsest = self.levels[-1]
        if coarsest.width * coarsest.height <= MAX_READ_PX:
            factor = max(coarsest.downsample, max(self.dimensions) / WHITE_SAMPLE_PX)
            whole = Box(0, 0, *self.dimensions)
            return read_box(
                self._source, whole, downsample=(factor, factor), white=lambda: (0, 0, 0)
            )
        # A large slide without a pyramid: small pieces on a grid instead of every pixel.
        side = WHITE_SAMPLE_PX // N_WHITE_SAMPLES_PER_SIDE
        xs, ys = (
            np.linspace(0, length - side, N_WHITE_SAMPLES_PER_SIDE).astype(int)
            for length in self.dimensions
        )
        pieces = [
            read_box(
                self._source,
                Box(int(x), int(y), side, side),
                downsample=(1.0, 1.0),
                white=lambda: (0, 0, 0),
            )
            for y in ys
            for x in xs
        ]
        return np.concatenate(pieces)


def _reopen(path: Path, mpp_override: float | None) -> Slide:
    return open_slide(path, mpp_override=mpp_override)


def _slide_file(path: Path) -> Path:
    """Return the file to open for a path, or say at once why there is none."""
    if path.is_dir():
        files = dicom_files(path)
        if not files:
            raise SlideError("is a folder without DICOM files; name a slide in it", where=str(path))
        return files[0]
    try:
        n_bytes = path.stat().st_size
    except FileNotFoundError as error:
        raise SlideError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise SlideError(f"cannot be opened: {error.strerror}", where=str(path)) from error
    if n_bytes == 0:
        raise SlideError("the file is empty (0 bytes)", where=str(path))
    return path


def _number(text: str | None) -> float | None:
    """Return a property as a positive or zero finite number, or None if it is none."""
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
