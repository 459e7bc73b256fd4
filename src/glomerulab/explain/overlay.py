"""A saliency map laid over its image, so that a person sees where without losing what.

The image turns grey under the map, so that every colour in the picture means saliency.
"""

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from glomerulab.images import RgbImage

__all__ = ["laid_over", "overlay"]

COLOURS = "viridis"  # rises in lightness too: told apart without colour, and in print
MAX_OPACITY = 0.75
BRIGHTEST = 0.995
OUTLINE = (213, 94, 0)


def overlay(
    image: RgbImage,
    saliency: npt.NDArray[np.float32],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> RgbImage:
    """Draw the image, and beside it its map with the outline of the lesion.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    saliency : ndarray of float, shape (h, w)
        At least 0; scaled to its own brightest pixels and resized to the image.
    mask : ndarray of bool, shape (h, w), optional

    Returns
    -------
    ndarray of uint8, shape (H, 2 * W, 3)
        The more salient, the more opaque and the brighter; the lesion's edge is orange.
    """
    return np.concatenate([image, laid_over(image, saliency, mask=mask)], axis=1)


def laid_over(
    image: RgbImage,
    saliency: npt.NDArray[np.float32],
    *,
    mask: npt.NDArray[np.bool_] | None = None,
) -> RgbImage:
    """Draw a map over its image.

    Parameters
    ----------
    image, saliency, mask
        As for `overlay`.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    height, width = image.shape[:2]
    # Not by the maximum: the single brightest pixel of a noisy map would hide all others.
    top = max(float(np.quantile(saliency, BRIGHTEST)), float(saliency.max()) / 20.0, 1e-12)
    heat = _resized(saliency / top, width, height).clip(0, 1)
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    colour = 255.0 * colormaps[COLOURS](heat)[..., :3]
    opacity = (MAX_OPACITY * np.sqrt(heat))[..., None]
    shown = grey * (1.0 - opacity) + colour * opacity
    if mask is not None:
        shown[_edge(_resized(mask.astype(np.float32), width, height) >= 0.5)] = OUTLINE
    found: RgbImage = shown.round().astype(np.uint8)
    return found


def _resized(values: npt.NDArray[np.float32], width: int, height: int) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(values.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def _edge(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels inside within two of one outside."""
    padded = np.pad(inside, 2, mode="edge")
    height, width = inside.shape
    shifts = [(0, 2), (4, 2), (2, 0), (2, 4)]
    kept = np.logical_and.reduce([padded[y : y + height, x : x + width] for y, x in shifts])
    return np.asarray(inside & ~kept, dtype=np.bool_)
