"""Colour and texture of an image, and measures of what normalisation changed.

Statistics of the pixels, without a network or training; they do not capture structure such as the
shape of cells.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity

from glomerulab.images import RgbImage
from glomerulab.stain.optical_density import LUMINANCE_WEIGHTS, estimate_white, tissue_mask
from glomerulab.stain.reinhard import rgb_to_lab

__all__ = ["FEATURE_NAMES", "ImageMeasures", "downscaled", "image_features", "measure_pair"]

FloatArray = npt.NDArray[np.float64]

MAX_SIDE_PX = 512
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SCALES_PX = (1.0, 2.0, 4.0, 8.0)
LUMINANCE = np.array(LUMINANCE_WEIGHTS)

FEATURE_NAMES = (
    *(f"{c}_{s}" for c in "Lab" for s in ("mean", "std", *(f"q{q:g}" for q in QUANTILES))),
    *(f"texture_{scale:g}px" for scale in SCALES_PX),
    "gradient_mean",
    "tissue_share",
)
"""Colour (CIELAB over tissue), contrast of luminance by scale, and the share of tissue."""


@dataclass(frozen=True)
class ImageMeasures:
    """One image before and after normalisation."""

    nmi_before: float
    """Normalised median intensity: median over 95th percentile of tissue intensity."""
    nmi_after: float
    ssim: float
    """Structural similarity of luminance, 1 = same structure."""
    pcc: float
    """Pearson correlation of luminance."""
    saturated_before: float
    """Share of pixels with a channel at 0 or 255."""
    saturated_after: float
    background_before: float
    """Share of pixels that are bare glass."""
    background_after: float
    background_delta_e: float
    """CIE76 colour difference of the glass between before and after; NaN without glass."""


def downscaled(image: RgbImage) -> RgbImage:
    """Return the image with its longer side reduced to at most 512 px."""
    longest = max(image.shape[:2])
    if longest <= MAX_SIDE_PX:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.BOX)
    return np.asarray(picture)


def image_features(image: RgbImage) -> FloatArray:
    """Return features of colour and texture of the tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    ndarray of float64, shape (n,)
        In the order of `FEATURE_NAMES`; over all pixels where there is no tissue.
    """
    mask = tissue_mask(image, estimate_white(image))
    share = float(mask.mean())
    if not mask.any():
        mask = np.ones_like(mask)
    lab = rgb_to_lab(image[mask])  # (n, 3)
    colour = np.vstack([lab.mean(axis=0), lab.std(axis=0), np.quantile(lab, QUANTILES, axis=0)])
    luminance = image @ LUMINANCE
    smooth = [ndimage.gaussian_filter(luminance, scale) for scale in SCALES_PX]
    finer = [luminance, *smooth[:-1]]
    texture = [float((a - b)[mask].std()) for a, b in zip(finer, smooth, strict=True)]
    gradient = float(ndimage.gaussian_gradient_magnitude(luminance, 1.0)[mask].mean())
    return np.array([*colour.T.ravel(), *texture, gradient, share])


def measure_pair(before: RgbImage, after: RgbImage) -> ImageMeasures:
    """Compare an image before and after normalisation.

    Parameters
    ----------
    before, after : ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"images differ in shape: {before.shape} and {after.shape}")
    tissue = tissue_mask(before, estimate_white(before))
    tissue_after = tissue_mask(after, estimate_white(after))
    glass = ~tissue & (before.min(axis=2) > 0)
    one, other = before @ LUMINANCE, after @ LUMINANCE
    return ImageMeasures(
        nmi_before=_normalised_median(before, tissue),
        nmi_after=_normalised_median(after, tissue),
        ssim=_structural_similarity(one, other),
        pcc=_correlation(one, other),
        saturated_before=_saturated_share(before),
        saturated_after=_saturated_share(after),
        background_before=1.0 - float(tissue.mean()),
        background_after=1.0 - float(tissue_after.mean()),
        background_delta_e=_colour_difference(before, after, glass),
    )


def _structural_similarity(one: FloatArray, other: FloatArray) -> float:
    """Return the mean structural similarity of two grey images of range 0 to 255.

    Wang et al., IEEE Trans. Image Process. 13(4), 2004, with its Gaussian window of 1.5 px.
    """
    similarity = structural_similarity(  # type: ignore[no-untyped-call]
        one,
        other,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255.0,
        win_size=1,  # only trims the border before averaging: keep all pixels, and small images
    )
    return float(similarity)


def _normalised_median(image: RgbImage, tissue: npt.NDArray[np.bool_]) -> float:
    if not tissue.any():
        return float("nan")
    median, top = np.quantile(image[tissue].mean(axis=1), [0.5, 0.95])
    return float(median / max(top, 1.0))


def _correlation(one: FloatArray, other: FloatArray) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / scale) if scale > 0.0 else float("nan")


def _saturated_share(image: RgbImage) -> float:
    return float(np.any((image == 0) | (image == 255), axis=2).mean())


def _colour_difference(before: RgbImage, after: RgbImage, where: npt.NDArray[np.bool_]) -> float:
    if not where.any():
        return float("nan")
    shift = rgb_to_lab(after[where]).mean(axis=0) - rgb_to_lab(before[where]).mean(axis=0)
    return float(np.linalg.norm(shift))
