"""Optical density of bright-field pixels, the white it is measured against, and the tissue mask.

Tissue is neither bare glass nor black border or fold; the mask uses brightness only, not stains.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from glomerulab.images import RgbImage
from glomerulab.stain.kernels.pixels import (
    PixelTables,
    brightest_peak,
    channel_histograms,
    gather_tissue,
    mark_tissue,
)

__all__ = [
    "FloatArray",
    "White",
    "checked_image",
    "checked_white",
    "estimate_white",
    "find_tissue",
    "tissue_mask",
]

FloatArray = npt.NDArray[np.float64]

BoolArray = npt.NDArray[np.bool_]

Triple = tuple[float, float, float]
"""One number per colour channel."""

White = FloatArray | Triple | float
"""Grey level of unstained glass: per channel, or one for all."""

BLACK_LUMINANCE = 0.002
"""Relative luminance (CIE Y, 0 to 1) up to which a pixel is border or fold: grey level 6."""

GLASS_LIGHTNESS = 0.9
"""CIE lightness L* / 100 relative to white from which a pixel is bare glass."""

SAMPLE_PX = 1 << 19
MIN_SAMPLE_PX = 1 << 17

LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709

MAX_PIXELS_FOR_WHITE = 1 << 14
LOG_LEVELS = np.log(np.maximum(np.arange(256.0), 1.0))

PALEST_QUANTILE = 0.995
PEAK_WINDOW = 0.85  # of the palest; a darker peak is tissue
PEAK_DROP = 0.07  # share by which the histogram falls after a peak, beyond chance
CHANCE = 3.0  # standard deviations
PEAK_HALF_WIDTH = 0.03
MIN_GLASS_SHARE = 0.002
MIN_GREEN = 0.92  # of the lower of red and blue
SMOOTHED_BINS = 4.3  # effective number of bins after smoothing by (1, 2, 3, 2, 1) / 9: 81 / 19


def optical_density(image: RgbImage, white: FloatArray | float = 255.0) -> FloatArray:
    r"""Convert transmitted light to absorbance, which is linear in the amount of stain.

    Parameters
    ----------
    image : ndarray of uint8, shape (..., 3)
        Pixels, grey levels 0 to 255.
    white : float or ndarray of float, shape (3,), default 255.0
        Grey level of unstained glass, in (0, 255].

    Returns
    -------
    ndarray of float64, shape (..., 3)
        Optical density, natural logarithm, at least 0.

    Raises
    ------
    ValueError
        If the last axis is not RGB, or `white` is out of range.

    Notes
    -----
    Lambert-Beer: :math:`v_c = -\ln(\max(I_c, 1) / I_{0,c})`. Ours: a pixel brighter than white
    counts as white, so that v is never negative.

    Examples
    --------
    >>> optical_density(np.array([[255, 255, 26]], dtype=np.uint8)).round(2)
    array([[0.  , 0.  , 2.28]])
    """
    if image.dtype != np.uint8 or image.shape[-1:] != (3,):
        raise ValueError(f"image must be uint8 (..., 3), got {image.dtype} {image.shape}")
    table = optical_density_table(white)
    return np.stack([table[channel][image[..., channel]] for channel in range(3)], axis=-1)


def optical_density_table(white: FloatArray | float = 255.0) -> FloatArray:
    """Return the optical density of the 256 grey levels of each channel, shape (3, 256)."""
    table: FloatArray = np.log(checked_white(white))[:, np.newaxis] - LOG_LEVELS  # (3, 256)
    return np.maximum(table, 0.0)


def transmitted_light(density: FloatArray, white: FloatArray | float = 255.0) -> RgbImage:
    """Convert optical density to pixels, rounded to the nearest grey level.

    Parameters
    ----------
    density : ndarray of float, shape (..., 3)
        Natural logarithm; below 0 counts as 0.
    white : float or ndarray of float, shape (3,), default 255.0
        In (0, 255].

    Returns
    -------
    ndarray of uint8, shape (..., 3)
    """
    light = checked_white(white) * np.exp(-np.maximum(density, 0.0))
    return np.rint(light).astype(np.uint8)


def estimate_white(image: RgbImage) -> FloatArray:
    """Estimate the grey level of unstained glass per channel, from the brightest pixels.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Of more than 16,384 pixels an even sample is taken.

    Returns
    -------
    ndarray of float64, shape (3,)
        At least 1.

    Notes
    -----
    Glass is flat: it stands out as the brightest peak of the brightness histogram, within 15 % of
    the brightest pixels, and its median per channel is taken. Where there is no such peak, or it
    lacks green (lamps are yellow or blue, only stained tissue is pink), the image shows no glass;
    then light is taken to be neutral, as bright as the brightest channel of the palest tissue.
    Give the white of the slide where crops are cut that tightly.
    """
    pixels = checked_image(image).reshape(-1, 3)
    sample = pixels[:: max(1, -(-len(pixels) // MAX_PIXELS_FOR_WHITE))]
    counts = np.zeros((4, 256), np.int64)
    channel_histograms(sample, 0, 255, counts)
    top = _quantile(counts, PALEST_QUANTILE)
    n = len(sample)
    lowest = int(PEAK_WINDOW * top[3])
    chance = CHANCE / math.sqrt(SMOOTHED_BINS)
    peak = brightest_peak(counts[3], lowest, MIN_GLASS_SHARE * n, PEAK_DROP, chance)
    neutral = np.full(3, top[:3].max())
    if peak < 0:
        return neutral
    half_width = max(1, round(PEAK_HALF_WIDTH * peak))
    channel_histograms(sample, peak - half_width, peak + half_width, counts)
    white = _quantile(counts, 0.5)[:3]
    return neutral if white[1] < MIN_GREEN * min(white[0], white[2]) else white


def _quantile(counts: npt.NDArray[np.int64], quantile: float) -> FloatArray:
    """Return a quantile of the grey levels of each row of a histogram, at least 1."""
    below = np.cumsum(counts, axis=1)
    levels = np.count_nonzero(below < quantile * below[:, -1:], axis=1).astype(np.float64)
    at_least_one: FloatArray = np.maximum(levels, 1.0)
    return at_least_one


def checked_white(white: White) -> FloatArray:
    """Return white as three grey levels; raise `ValueError` for another shape or range."""
    levels = np.array(white, dtype=np.float64)
    if levels.shape == ():
        levels = np.repeat(levels, 3)
    if levels.shape != (3,) or not all(0.0 < level <= 255.0 for level in levels.tolist()):
        raise ValueError(f"white must be one or three grey levels in (0, 255], got {white}")
    return levels


def checked_image(image: RgbImage) -> RgbImage:
    """Return the image in row-major order, copied only if needed.

    Raises `TypeError` for something that is no array, and `ValueError` for one that is not
    uint8 (H, W, 3) or is empty.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image must be an array, uint8 (H, W, 3), got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def tissue_mask(
    image: RgbImage, white: FloatArray | float, *, glass_lightness: float = GLASS_LIGHTNESS
) -> BoolArray:
    """Mark the pixels that are tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    white : float or ndarray of float, shape (3,)
        Grey level of unstained glass.
    glass_lightness : float, default `GLASS_LIGHTNESS`
        CIE lightness relative to white, in (0, 1], from which a pixel is glass.

    Returns
    -------
    ndarray of bool, shape (H, W)

    Notes
    -----
    Black is defined by the luminance of the pixel, glass by its luminance relative to white, both
    after inversion of the sRGB transfer curve.
    """
    pixels = checked_image(image)
    mask = np.empty(pixels.shape[:2], dtype=np.bool_)
    mark_tissue(pixels.reshape(-1, 3), pixel_tables(white, glass_lightness), mask.reshape(-1))
    return mask


@dataclass(frozen=True)
class Tissue:
    """Optical density of the tissue of an image, or of an even sample of a large one."""

    density: npt.NDArray[np.float32]
    """Shape (3, n), in the order of the image."""
    tables: PixelTables
    pixels: RgbImage | None = None
    """All pixels, shape (N, 3), if `density` is that of a sample."""

    def full_density(self) -> npt.NDArray[np.float32]:
        """Return the optical density of all tissue, shape (3, n)."""
        return self.density if self.pixels is None else _gathered(self.pixels, self.tables)

    def count(self) -> int:
        """Return the number of tissue pixels of the image."""
        if self.pixels is None:
            return int(self.density.shape[1])
        mask = np.empty(len(self.pixels), dtype=np.bool_)
        mark_tissue(self.pixels, self.tables, mask)
        return int(np.count_nonzero(mask))


def find_tissue(
    image: RgbImage, white: FloatArray | float, *, glass_lightness: float = GLASS_LIGHTNESS
) -> Tissue:
    """Find the tissue pixels of an image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Of more than 524,288 pixels an even sample is taken, if 131,072 of it are tissue.
    white, glass_lightness
        As for `tissue_mask`.
    """
    pixels = checked_image(image).reshape(-1, 3)
    tables = pixel_tables(white, glass_lightness)
    # Odd: JPEG blocks and most widths are multiples of eight.
    step = -(-len(pixels) // SAMPLE_PX) | 1
    if step > 1:
        sample = _gathered(pixels[::step], tables)
        if sample.shape[1] >= MIN_SAMPLE_PX:
            return Tissue(sample, tables, pixels)
    return Tissue(_gathered(pixels, tables), tables)


def pixel_tables(white: White, glass_lightness: float = GLASS_LIGHTNESS) -> PixelTables:
    """Return the tables with which compiled code finds tissue and its optical density."""
    red, green, blue = checked_white(white).tolist()
    return _cached_tables((red, green, blue), glass_lightness)


def _gathered(pixels: RgbImage, tables: PixelTables) -> npt.NDArray[np.float32]:
    density = np.empty((3, len(pixels)), dtype=np.float32)
    return density[:, : gather_tissue(pixels, tables, density)]


@lru_cache(maxsize=64)
def _cached_tables(white: Triple, glass_lightness: float) -> PixelTables:
    weights = np.array(LUMINANCE_WEIGHTS)[:, np.newaxis]
    levels = np.arange(256.0)
    relative = np.minimum(levels / np.array(white)[:, np.newaxis], 1.0)
    luminance = np.stack([weights * linear_light(levels / 255.0), weights * linear_light(relative)])
    # L* = 116 Y^(1/3) - 16 (CIE 1976), solved for Y.
    glass = ((100.0 * glass_lightness + 16.0) / 116.0) ** 3
    limits = np.array([BLACK_LUMINANCE, glass], np.float32)
    density = optical_density_table(np.array(white)).astype(np.float32)
    return luminance.astype(np.float32), limits, density


def linear_light(encoded: FloatArray) -> FloatArray:
    """Undo the sRGB transfer curve (IEC 61966-2-1); values from 0 to 1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def triple(values: Any) -> Triple:  # noqa: ANN401 - numbers from JSON or an array
    """Return three numbers as a tuple of float."""
    red, green, blue = values
    return float(red), float(green), float(blue)
