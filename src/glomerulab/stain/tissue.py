"""Which pixels of an image are tissue: neither bare glass nor black border or fold.

Brightness only; it must not know of stains.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from glomerulab.images import RgbImage
from glomerulab.stain.kernels.pixels import Light, gather_tissue, mark_tissue
from glomerulab.stain.optical_density import (
    FloatArray,
    White,
    checked_image,
    checked_white,
    optical_density_table,
)

__all__ = [
    "BLACK_LUMINANCE",
    "GLASS_LIGHTNESS",
    "Tissue",
    "find_tissue",
    "light_of",
    "tissue_density",
    "tissue_mask",
]

BLACK_LUMINANCE = 0.002
"""Relative luminance (CIE Y, 0 to 1) up to which a pixel is border or fold: grey level 6."""

GLASS_LIGHTNESS = 0.9
"""CIE lightness L* / 100 relative to white from which a pixel is bare glass."""

SAMPLE_PX = 1 << 19
MIN_SAMPLE_PX = 1 << 17

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
    mark_tissue(pixels.reshape(-1, 3), light_of(white, glass_lightness), mask.reshape(-1))
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
    return _gathered(checked_image(image).reshape(-1, 3), light_of(white, glass_lightness))


@dataclass(frozen=True)
class Tissue:
    """Optical density of the tissue of an image; of a large one, of an even sample."""

    density: npt.NDArray[np.float32]
    """Shape (3, n), in the order of the image."""
    light: Light
    pixels: RgbImage | None = None
    """All pixels, shape (N, 3), where `density` is that of a sample."""

    def whole_density(self) -> npt.NDArray[np.float32]:
        """Return the optical density of all tissue, shape (3, n), in the sample or not."""
        return self.density if self.pixels is None else _gathered(self.pixels, self.light)

    def count(self) -> int:
        """Return how many pixels are tissue, in the sample or not."""
        if self.pixels is None:
            return int(self.density.shape[1])
        mask = np.empty(len(self.pixels), dtype=np.bool_)
        mark_tissue(self.pixels, self.light, mask)
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

    Returns
    -------
    Tissue
    """
    pixels = checked_image(image).reshape(-1, 3)
    light = light_of(white, glass_lightness)
    # Odd, since JPEG repeats itself every eight pixels and so do most widths.
    step = -(-len(pixels) // SAMPLE_PX) | 1
    if step > 1:
        sample = _gathered(pixels[::step], light)
        if sample.shape[1] >= MIN_SAMPLE_PX:
            return Tissue(sample, light, pixels)
    return Tissue(_gathered(pixels, light), light)


def light_of(white: White, glass_lightness: float = GLASS_LIGHTNESS) -> Light:
    """Return the tables by which compiled code tells tissue from glass and reads its density.

    Parameters
    ----------
    white, glass_lightness
        As for `tissue_mask`.

    Returns
    -------
    Light
    """
    red, green, blue = checked_white(white).tolist()
    return _light((red, green, blue), glass_lightness)


def _gathered(pixels: RgbImage, light: Light) -> npt.NDArray[np.float32]:
    density = np.empty((3, len(pixels)), dtype=np.float32)
    return density[:, : gather_tissue(pixels, light, density)]


@lru_cache(maxsize=64)
def _light(white: tuple[float, float, float], glass_lightness: float) -> Light:
    weights = np.array(LUMINANCE_WEIGHTS)[:, np.newaxis]
    levels = np.arange(256.0)
    relative = np.minimum(levels / np.array(white)[:, np.newaxis], 1.0)
    luminance = np.stack([weights * _linear(levels / 255.0), weights * _linear(relative)])
    # L* = 116 Y^(1/3) - 16 (CIE 1976), solved for Y.
    glass = ((100.0 * glass_lightness + 16.0) / 116.0) ** 3
    limits = np.array([BLACK_LUMINANCE, glass], np.float32)
    density = optical_density_table(np.array(white)).astype(np.float32)
    return luminance.astype(np.float32), limits, density


def _linear(encoded: FloatArray) -> FloatArray:
    """Undo the sRGB transfer curve (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
