"""Optical density of bright-field pixels, and the white it is measured against.

The space every stain method works in. No slide reading, no torch, no randomness.
"""

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

MAX_PIXELS_FOR_WHITE = 1 << 18
BRIGHT_QUANTILE = 0.99
BRIGHT_SHARE = 0.92


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

    Returns
    -------
    ndarray of float64, shape (3,)
        At least 1.

    Notes
    -----
    Glass is what lies within 8 % of the 99th percentile of green-weighted brightness; its median
    per channel is taken. An image without any glass yields its palest tissue instead: give the
    white of the slide where crops are cut that tightly.
    """
    pixels = checked_image(image).reshape(-1, 3)
    step = max(1, -(-len(pixels) // MAX_PIXELS_FOR_WHITE))
    histograms = np.zeros((4, 256), np.int64)
    sample = pixels[::step]
    channel_histograms(sample, 0, histograms)
    brightness = np.cumsum(histograms[3])
    top = int(np.searchsorted(brightness, BRIGHT_QUANTILE * brightness[-1]))
    channel_histograms(sample, int(BRIGHT_SHARE * top), histograms)
    counts = np.cumsum(histograms[:3], axis=1)
    middle = [np.searchsorted(row, 0.5 * row[-1]) for row in counts]
    return np.maximum(np.array(middle, dtype=np.float64), 1.0)


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
