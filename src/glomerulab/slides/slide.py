"""Open a slide: its metadata, and its pixels at any micrometres per pixel.

`open_slide` opens OpenSlide's formats, DICOM and plain images alike. The mpp is never guessed: a
slide without one raises `MissingMppError` as soon as it is needed.
"""

import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from glomerulab.errors import MissingMppError, SlideError
from glomerulab.geometry import Box, Point
from glomerulab.images import RgbImage
from glomerulab.runtime.files import StrPath, existing_path
from glomerulab.runtime.tables import nfc
from glomerulab.slides.files import whole_slides
from glomerulab.slides.resampling import MAX_READ_PX, Colour, read_box, read_grid
from glomerulab.slides.scale import MAX_MPP, MIN_MPP, ScaleWarning, scale_warnings
from glomerulab.slides.sources import ImageSource, OpenSlideSource, PixelSource, detect_vendor

__all__ = ["Level", "Slide", "open_slide"]

BACKGROUND_SAMPLE_PX = 512
N_SAMPLES_PER_SIDE = 8
MIN_GLASS_LEVEL = 190
MAX_GLASS_SPREAD = 25
MIN_GLASS_SHARE = 0.005
PURE_WHITE: Colour = (255, 255, 255)

# Silver comes before PAS: "PAS-M" and "periodic acid silver methenamine" start like PAS.
STAIN_PATTERNS = (
    ("H-DAB", r"\bdab\b|diaminobenzidine"),
    ("PASM", r"\bpas[-\s]?m\b|\bpams\b|methenamine|jones|silver"),
    ("PAS", r"\bpas\b|periodic acid[- ]schiff"),
    ("TRI", r"trichrom|masson"),
    ("HE", r"\bh\s?(&|\+|and|-)?\s?e\b|ha?ematoxylin.*eosin|eosin.*ha?ematoxylin"),
)
PREPARATION = re.compile(r"stain|specimenpreparation", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid."""

    width: int
    height: int
    downsample: float
    """Factor from this level to level 0."""


def open_slide(path: StrPath, *, mpp_override: float | None = None) -> "Slide":
    """Open a slide or a plain image.

    Parameters
    ----------
    path : Path
        Anything OpenSlide or Pillow reads; for DICOM one of the files, or their folder.
    mpp_override : float, optional
        Micrometres per pixel of level 0, from 0.05 to 10, in place of the file's own.

    Returns
    -------
    Slide
        To be closed, best by a ``with`` block.

    Raises
    ------
    SlideError
        If the file is missing, empty, damaged or in no known format.
    ValueError
        If `mpp_override` is out of its range.
    """
    if mpp_override is not None and not MIN_MPP <= mpp_override <= MAX_MPP:
        raise ValueError(f"mpp_override must be {MIN_MPP:g} to {MAX_MPP:g}, got {mpp_override}")
    path = existing_path(Path(path))
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
        Micrometres per pixel of level 0, in place of the file's own.
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

    def __exit__(self, *_raised: object) -> None:
        """Close the file."""
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Reopen by path in the other process."""
        return _reopen, (self.path, self._mpp_override)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    @property
    def slide_id(self) -> str:
        """The file's name without its suffix, in NFC."""
        return nfc(self.path.name if self.path.is_dir() else self.path.stem)

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
        """All metadata of the file, under OpenSlide's names."""
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
            If neither the file nor `mpp_override` states them, or the file states more than 10
            (a print resolution) or less than 0.05 micrometres per pixel.
        """
        if self._mpp_override is not None:
            return self._mpp_override, self._mpp_override
        if self.stated_mpp_xy is None:
            raise MissingMppError(
                "the slide does not state its micrometres per pixel; give them with "
                "--mpp-override, or mpp in the slides table",
                where=str(self.path),
            )
        across, down = self.stated_mpp_xy
        if max(across, down) > MAX_MPP:
            raise MissingMppError(
                f"the slide states {max(across, down):g} micrometres per pixel, which is a print "
                "resolution and not that of a scan; give the true ones with "
                "--mpp-override, or mpp in the slides table",
                where=str(self.path),
            )
        if min(across, down) < MIN_MPP:
            raise MissingMppError(
                f"the slide states {min(across, down):g} micrometres per pixel, which is finer "
                f"than any light microscope's {MIN_MPP:g}; give the true ones with "
                "--mpp-override, or mpp in the slides table",
                where=str(self.path),
            )
        return across, down

    @cached_property
    def stated_mpp_xy(self) -> tuple[float, float] | None:
        """Micrometres per level-0 pixel along x and y as the file states them, plausible or not."""
        across, down = (_number(self.properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
        return (across, down) if across and down else None

    @property
    def scale_warnings(self) -> list[ScaleWarning]:
        """Contradictions of the metadata about the scale; errors as for `mpp_xy`."""
        return scale_warnings(
            self.slide_id,
            self.stated_mpp_xy,
            self.mpp_xy,
            objective=self.objective,
            vendor=self.vendor,
        )

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel, the mean of both axes; errors as for `mpp_xy`."""
        return sum(self.mpp_xy) / 2

    @cached_property
    def objective(self) -> float | None:
        """Power of the objective, if the file states it. For display only, never for scaling."""
        return _number(self.properties.get("openslide.objective-power"))

    @cached_property
    def stain(self) -> str | None:
        """The stain that the metadata name: HE, PAS, PASM, TRI, H-DAB, or None."""
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
        """Corner of `bounds`, from which QuPath counts its coordinates."""
        return (0.0, 0.0) if self.bounds is None else (float(self.bounds.x), float(self.bounds.y))

    @cached_property
    def background(self) -> Colour:
        """Colour of the empty glass, estimated from the coarsest level.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded.
        """
        return estimate_background(self._sample())

    def read_region(self, box: Box, *, mpp: float | None = None) -> RgbImage:
        """Read a box of the slide.

        Parameters
        ----------
        box : Box
            In level-0 pixels. Pixels outside the slide get the colour of `background`.
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

    def read_grid(
        self, corner: Point, size: tuple[int, int], *, downsample: tuple[float, float]
    ) -> RgbImage:
        """Read a part of a grid laid over the slide, whose parts fit together.

        Parameters
        ----------
        corner : tuple of float
            Upper left corner (x, y) in level-0 pixels.
        size : tuple of int
            Width and height in pixels of the grid.
        downsample : tuple of float
            Level-0 pixels per pixel of the grid, along x and y.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)
            Pixels outside the slide have the colour of `background`.

        Raises
        ------
        SlideError
            If the pixels cannot be decoded.
        """
        return read_grid(
            self._source,
            corner,
            size,
            downsample=downsample,
            background=lambda: self.background,
        )

    def thumbnail(self, max_side: int = 1024) -> RgbImage:
        """Read the complete slide at low resolution.

        Parameters
        ----------
        max_side : int, default 1024
            Pixels along the longer side, at least 1; a smaller slide is not enlarged.

        Returns
        -------
        ndarray of uint8, shape (H, W, 3)

        Raises
        ------
        SlideError
            If the pixels cannot be decoded.
        """
        if max_side < 1:
            raise ValueError(f"max_side must be at least 1, got {max_side}")
        factor = max(1.0, max(self.dimensions) / max_side)
        return self._read(Box(0, 0, *self.dimensions), (factor, factor))

    def read_level(self, level: int, corner: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Read the stored pixels of one level, for viewers; see `PixelSource.read`.

        Parameters
        ----------
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
            If the pixels cannot be decoded. The slide has to be opened again after that.
        """
        return self._source.read(level, corner, size)

    def padded_share(self, box: Box) -> float:
        """Return the share of a box that lies outside the slide, from 0 to 1."""
        inside = box.intersection_area(Box(0, 0, *self.dimensions))
        return 1.0 - inside / (box.width * box.height)

    def _read(self, box: Box, downsample: tuple[float, float]) -> RgbImage:
        try:
            return read_box(
                self._source, box, downsample=downsample, background=lambda: self.background
            )
        except ValueError as error:
            raise SlideError(
                f"{error}; give a larger mpp or a smaller region", where=str(self.path)
            ) from error

    def _sample(self) -> RgbImage:
        """Read pixels from all over the slide, few enough for any slide."""
        coarsest = self.levels[-1]
        if coarsest.width * coarsest.height <= MAX_READ_PX:
            factor = max(coarsest.downsample, max(self.dimensions) / BACKGROUND_SAMPLE_PX)
            return self._read_on_black(Box(0, 0, *self.dimensions), factor)
        # A large slide without a pyramid: small pieces on a grid instead of every pixel.
        side = BACKGROUND_SAMPLE_PX // N_SAMPLES_PER_SIDE
        xs, ys = (
            np.linspace(0, length - side, N_SAMPLES_PER_SIDE).astype(int)
            for length in self.dimensions
        )
        pieces = [self._read_on_black(Box(int(x), int(y), side, side), 1.0) for y in ys for x in xs]
        return np.concatenate(pieces)

    def _read_on_black(self, box: Box, factor: float) -> RgbImage:
        return read_box(
            self._source, box, downsample=(factor, factor), background=lambda: (0, 0, 0)
        )


def estimate_background(pixels: RgbImage) -> Colour:
    """Return the median colour of the bright pixels without hue, which are empty glass.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (..., 3)
        A sample of the complete slide, such as its thumbnail.

    Returns
    -------
    tuple of int
        255 each where fewer than one pixel in 200 is glass.

    Notes
    -----
    It is for padding; `glomerulab.stain.optical_density.estimate_white` measures the light for
    optical densities.
    """
    flat = pixels.reshape(-1, 3)
    darkest, brightest = flat.min(axis=1), flat.max(axis=1)
    glass = flat[(darkest >= MIN_GLASS_LEVEL) & (brightest - darkest <= MAX_GLASS_SPREAD)]
    if len(glass) < max(1.0, MIN_GLASS_SHARE * len(flat)):
        return PURE_WHITE
    red, green, blue = (int(level) for level in np.median(glass, axis=0))
    return red, green, blue


def stain_of_properties(properties: Mapping[str, str]) -> str | None:
    """Return the stain that properties about staining name, or None.

    Examples
    --------
    >>> stain_of_properties({"vendor.Stain": "Periodic acid-Schiff"})
    'PAS'
    """
    # DICOM lists the dyes of one stain as separate steps: read them together.
    stated = " ; ".join(value for name, value in properties.items() if PREPARATION.search(name))
    for stain, pattern in STAIN_PATTERNS:
        if re.search(pattern, stated, re.IGNORECASE | re.DOTALL):
            return stain
    return None


def _reopen(path: Path, mpp_override: float | None) -> Slide:
    return open_slide(path, mpp_override=mpp_override)


def _slide_file(path: Path) -> Path:
    """Return the file to open for a path."""
    try:
        found = path.stat()
        slides = whole_slides(path) if stat.S_ISDIR(found.st_mode) else None
    except (FileNotFoundError, ValueError) as error:  # ValueError: a NUL in the path
        raise SlideError("there is no such slide file; check the path", where=str(path)) from error
    except OSError as error:
        raise SlideError(
            f"the slide cannot be opened: {error.strerror}", where=str(path)
        ) from error
    if slides is None:
        if found.st_size == 0:
            raise SlideError("the slide file is empty (0 bytes)", where=str(path))
        return path
    if not slides:
        raise SlideError("the folder holds no DICOM files; give a slide in it", where=str(path))
    if len(slides) > 1:
        raise SlideError(
            f"the folder holds {len(slides)} DICOM slides; give a file of one of them, or put each "
            "into a folder of its own",
            where=str(path),
        )
    return slides[0]


def _number(text: str | None) -> float | None:
    """Return a property as a finite number of at least 0, or None if it is not one."""
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
