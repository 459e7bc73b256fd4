"""Which pixels of an image are tissue: neither bare glass nor black border or fold.

Brightness only; it must not know of stains.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from glomerulab.images import RgbImage
from glomerulab.stain._pixel_kernels import gather_tissue, mark_tissue
from glomerulab.stain.optical_density import (
    FloatArray,
    checked_image,
    checked_white,
    optical_density_table,
)

__all__ = ["BLACK_LUMINANCE", "GLASS_LIGHTNESS", "tissue_density", "tissue_mask"]

BLACK_LUMINANCE = 0.002
"""Relative luminance (CIE Y, 0 to 1) up to which a pixel is border or fold: grey level 6."""

GLASS_LIGHTNESS = 0.9
"""CIE lightness L* / 100 relative to white from which a pixel is bare glass."""

LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709

BoolArray = npt.NDArray[np.bool_]


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
    Black is judged by the pixel's own luminance, glass by its luminance relative to white, both
    with the sRGB transfer curve undone.
    """
    pixels = checked_image(image)
    mask = np.empty(pixels.shape[:2], dtype=np.bool_)
    luminance, highest = _luminance_tables(_key(white), glass_lightness)
    mark_tissue(
        pixels.reshape(-1, 3), luminance, np.float32(BLACK_LUMINANCE), highest, mask.reshape(-1)
    )
    return mask


def tissue_density(
    image: RgbImage, white: FloatArray | float, *, glass_lightness: float = GLASS_LIGHTNESS
) -> npt.NDArray[np.float32]:
    """Return the optical density of the tissue pixels, in the order of the image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    white : float or ndarray of float, shape (3,)
        Grey level of unstained glass.
    glass_lightness : float, default `GLASS_LIGHTNESS`
        As for `tissue_mask`.

    Returns
    -------
    ndarray of float32, shape (3, n)
        n is the number of tissue pixels.
    """
    pixels = checked_image(image).reshape(-1, 3)
    luminance, highest = _luminance_tables(_key(white), glass_lightness)
    table = optical_density_table(white).astype(np.float32)
    density = np.empty((3, len(pixels)), dtype=np.float32)
    n = gather_tissue(pixels, luminance, np.float32(BLACK_LUMINANCE), highest, table, density)
    return density[:, :n]


def _key(white: FloatArray | float) -> tuple[float, float, float]:
    red, green, blue = checked_white(white)
    return float(red), float(green), float(blue)


@lru_cache(maxsize=64)
def _luminance_tables(
    white: tuple[float, float, float], glass_lightness: float
) -> tuple[npt.NDArray[np.float32], np.float32]:
    """Each grey level's share of luminance, own and relative to white; and the limit of glass."""
    levels = np.arange(256.0)
    weights = np.array(LUMINANCE_WEIGHTS)[:, np.newaxis]
    relative = np.minimum(levels / np.array(white)[:, np.newaxis], 1.0)
    tables = np.stack([weights * _linear(levels / 255.0), weights * _linear(relative)])
    # L* = 116 Y^(1/3) - 16 (CIE 1976), solved for Y.
    highest = ((100.0 * glass_lightness + 16.0) / 116.0) ** 3
    return tables.astype(np.float32), np.float32(highest)


def _linear(encoded: FloatArray) -> FloatArray:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
