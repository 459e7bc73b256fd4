"""The colour of a slide's empty glass: what padding is painted with.

Works on pixels only; where they come from is the caller's business.
"""

import numpy as np

from glomerulab.images import RgbImage
from glomerulab.slides.resampling import White

__all__ = ["estimate_white"]

MIN_GLASS_LEVEL = 190
MAX_GLASS_SPREAD = 25
MIN_GLASS_SHARE = 0.005
PURE_WHITE: White = (255, 255, 255)


def estimate_white(pixels: RgbImage) -> White:
    """Estimate the grey levels of unstained glass.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (..., 3)
        A sample of the whole slide, such as its thumbnail.

    Returns
    -------
    tuple of int
        Median red, green and blue of the pixels that are bright and without colour; 255 each
        where fewer than one pixel in 200 is.

    Raises
    ------
    ValueError
        If `pixels` is not RGB.
    """
    if pixels.shape[-1:] != (3,):
        raise ValueError(f"pixels must have shape (..., 3), got {pixels.shape}")
    flat = pixels.reshape(-1, 3)
    darkest, brightest = flat.min(axis=1), flat.max(axis=1)
    glass = flat[(darkest >= MIN_GLASS_LEVEL) & (brightest - darkest <= MAX_GLASS_SPREAD)]
    if len(glass) < max(1.0, MIN_GLASS_SHARE * len(flat)):
        return PURE_WHITE
    red, green, blue = (int(level) for level in np.median(glass, axis=0))
    return red, green, blue
