"""Optical density of bright-field pixels, and the white it is measured against.

The space every stain method works in. No slide reading, no torch, no randomness.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from glomerulab.images import RgbImage
from glomerulab.stain._pixel_kernels import channel_histograms

__all__ = [
    "FloatArray",
    "White",
    "checked_image",
    "checked_white",
    "estimate_white",
    "optical_density",
    "optical_density_table",
    "transmitted_light",
]

FloatArray = npt.NDArray[np.float64]

White = FloatArray | tuple[float, float, float] | float | Literal["estimate"]
"""Grey level of unstained glass: per channel, one for all, or to be estimated from the image."""

MAX_PIXELS_FOR_WHITE = 1 << 16
PALEST_QUANTILE = 0.995
PEAK_WINDOW = 0.85  # of the palest: below it a peak is tissue
PEAK_DROP = 0.07  # a peak is one when the histogram then falls by this share, beyond chance
CHANCE = 3.0  # standard deviations
PEAK_HALF_WIDTH = 0.03
MIN_GLASS_SHARE = 0.002
MIN_GREEN = 0.92  # of the lower of red and blue
SMOOTHING = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0
SMOOTHED_BINS = 4.3  # independent bins that one smoothed one is worth: 1 / sum of squares


def optical_density(image: RgbImage, white: FloatArray | float = 255.0) -> FloatArray:
    r"""Turn transmitted light into absorbance, which is linear in the amount of stain.

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
    """Return the optical density of each of the 256 grey levels in each channel.

    Parameters
    ----------
    white : float or ndarray of float, shape (3,), default 255.0
        In (0, 255].

    Returns
    -------
    ndarray of float64, shape (3, 256)

    Raises
    ------
    ValueError
        If `white` is out of range.
    """
    levels = np.maximum(np.arange(256.0), 1.0)
    table: FloatArray = np.log(checked_white(white)[:, np.newaxis] / levels)  # (3, 256)
    return np.maximum(table, 0.0)


def transmitted_light(density: FloatArray, white: FloatArray | float = 255.0) -> RgbImage:
    """Turn optical density back into pixels, rounded to the nearest grey level.

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
        Of more than 262,144 pixels an even sample is taken.

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
    neutral = np.full(3, max(_quantile(row, PALEST_QUANTILE) for row in counts[:3]))
    peak = _brightest_peak(counts[3])
    if peak is None:
        return neutral
    half_width = max(1, round(PEAK_HALF_WIDTH * peak))
    channel_histograms(sample, peak - half_width, peak + half_width, counts)
    white = np.array([_quantile(row, 0.5) for row in counts[:3]])
    return neutral if white[1] < MIN_GREEN * min(white[0], white[2]) else white


def _brightest_peak(brightness: npt.NDArray[np.int64]) -> int | None:
    """Return the level of the brightest peak of a histogram, None where there is only a slope."""
    n = int(brightness.sum())
    smooth = np.convolve(brightness, SMOOTHING, mode="same")
    top = round(_quantile(brightness, PALEST_QUANTILE))
    place, height, seen = top, 0.0, 0
    for level in range(255, int(PEAK_WINDOW * top) - 1, -1):
        seen += int(brightness[level])
        if smooth[level] > height:
            place, height = level, float(smooth[level])
        elif seen >= MIN_GLASS_SHARE * n:
            chance = CHANCE * math.sqrt(height / SMOOTHED_BINS)
            if height - smooth[level] > max(PEAK_DROP * height, chance):
                return place
    return None


def _quantile(counts: npt.NDArray[np.int64], quantile: float) -> float:
    """Return a quantile of grey levels from their histogram, at least 1."""
    below = np.cumsum(counts)
    return max(float(np.searchsorted(below, quantile * below[-1])), 1.0)


def checked_white(white: FloatArray | float) -> FloatArray:
    """Return white as three numbers, or say what is wrong with it.

    Parameters
    ----------
    white : float or ndarray of float, shape (3,)

    Returns
    -------
    ndarray of float64, shape (3,)

    Raises
    ------
    ValueError
        If it has another shape, or is not in (0, 255].
    """
    levels = np.asarray(white, dtype=np.float64)
    if levels.shape not in {(), (3,)} or not np.all((levels > 0.0) & (levels <= 255.0)):
        raise ValueError(f"white must be one or three grey levels in (0, 255], got {white}")
    return np.broadcast_to(levels, (3,)).copy()


def checked_image(image: RgbImage) -> RgbImage:
    """Return the image in row-major order, copied only if it was not.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ValueError
        If it has another type or shape, or no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or image.size == 0:
        raise ValueError(f"image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)
