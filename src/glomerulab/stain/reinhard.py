"""Reinhard's colour transfer: match mean and standard deviation of CIELAB over tissue."""

import numpy as np

from glomerulab.images import RgbImage
from glomerulab.stain.optical_density import BoolArray, FloatArray, Triple, linear_light, triple

# IEC 61966-2-1 (sRGB) primaries to CIE XYZ, rows X, Y, Z, each divided by the D65 white.
RGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
XYZ_TO_RGB = np.linalg.inv(RGB_TO_XYZ)
D65_WHITE = RGB_TO_XYZ.sum(axis=1)
LAB_EDGE = 6.0 / 29.0


def rgb_to_lab(image: RgbImage) -> FloatArray:
    """Convert sRGB pixels to CIELAB (D65).

    Parameters
    ----------
    image : ndarray of uint8, shape (..., 3)

    Returns
    -------
    ndarray of float64, shape (..., 3)
        L* 0 to 100, a* and b* about -128 to 127.
    """
    linear = linear_light(np.arange(256) / 255.0)
    xyz = linear[image] @ (RGB_TO_XYZ / D65_WHITE[:, np.newaxis]).T
    root = np.where(xyz > LAB_EDGE**3, np.cbrt(xyz), xyz / (3.0 * LAB_EDGE**2) + 4.0 / 29.0)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def lab_to_rgb(lab: FloatArray) -> RgbImage:
    """Convert CIELAB (D65) to sRGB pixels, clipped to the gamut.

    Parameters
    ----------
    lab : ndarray of float, shape (..., 3)

    Returns
    -------
    ndarray of uint8, shape (..., 3)
    """
    y = (lab[..., 0] + 16.0) / 116.0
    root = np.stack([y + lab[..., 1] / 500.0, y, y - lab[..., 2] / 200.0], axis=-1)
    xyz = np.where(root > LAB_EDGE, root**3, 3.0 * LAB_EDGE**2 * (root - 4.0 / 29.0)) * D65_WHITE
    linear = np.clip(xyz @ XYZ_TO_RGB.T, 0.0, 1.0)
    encoded: FloatArray = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return np.rint(255.0 * encoded).astype(np.uint8)


def lab_statistics(image: RgbImage, mask: BoolArray) -> tuple[Triple, Triple]:
    """Return mean and standard deviation of each CIELAB channel over tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    mask : ndarray of bool, shape (H, W)
        At least one pixel is True.

    Returns
    -------
    mean, std : tuple of float
        Three each.
    """
    lab = rgb_to_lab(image[mask])  # (n, 3)
    return triple(lab.mean(axis=0)), triple(lab.std(axis=0))


def transfer_lab_statistics(
    image: RgbImage,
    mask: BoolArray,
    *,
    source: tuple[FloatArray, FloatArray],
    target: tuple[FloatArray, FloatArray],
) -> RgbImage:
    """Match mean and standard deviation of each CIELAB channel of tissue to a target.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    mask : ndarray of bool, shape (H, W)
        Tissue; other pixels are unchanged.
    source, target : tuple of ndarray of float, shape (3,)
        Mean and standard deviation, as `lab_statistics` gives them.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array.

    Notes
    -----
    [1]_: scale and shift to the target's statistics channel by channel. Ours: CIELAB instead of
    lαβ, as in other stain tools, and over tissue only, so that glass is unchanged.

    References
    ----------
    .. [1] Reinhard et al., Color transfer between images, IEEE CG&A 21(5), 2001.
    """
    lab = rgb_to_lab(image[mask])  # (n, 3)
    gain = target[1] / np.maximum(source[1], 1e-6)
    out = image.copy()
    out[mask] = lab_to_rgb((lab - source[0]) * gain + target[0])
    return out
