"""Finding the stains of an image, or saying why it has no two: the status every image ends with.

`glomerulab.stain.normalize` recolours with what is found here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from glomerulab.errors import StainError
from glomerulab.images import RgbImage
from glomerulab.stain.kernels.pixels import concentration_percentiles
from glomerulab.stain.optical_density import (
    FloatArray,
    White,
    checked_image,
    checked_white,
    estimate_white,
    find_tissue,
    tissue_mask,
)
from glomerulab.stain.reference import (
    MIN_SEPARATION_DEGREES,
    RECOMMENDED,
    StainParameters,
    StainPrior,
    StainReference,
    prior_of,
)
from glomerulab.stain.reinhard import lab_statistics
from glomerulab.stain.separation import macenko_stains, solve_tissue

__all__ = [
    "MIN_TISSUE_PX",
    "Refusal",
    "StainStatus",
    "check_tissue",
    "fit",
    "fit_many",
    "try_fit",
    "try_fit_many",
]

MIN_TISSUE_PX = 100
"""Fewer tissue pixels than this say nothing about stains."""

MIN_PERCENTILE = 0.05
"""A stain whose upper percentile of optical density is below this is not there."""

SAMPLE_PX_PER_IMAGE = 1 << 16

# Green and teal ink takes far more red than green light; no dye of a prior does. Measured on the
# crops of a real slide with teal ink that are refused: 0.9 % to 14 % of the tissue; on real HE, PAS
# and silver without ink 0.24 % at most.
INK_RED_OVER_GREEN = 2.0
MIN_INK_DENSITY = 0.2
MIN_INK_SHARE = 0.005


class StainStatus(StrEnum):
    """What became of an image."""

    NORMALIZED = "normalized"
    SLIDE_STAINS = "slide_stains"
    """Its own stains could not be told apart; those of its slide were used."""
    BLANK = "blank"
    """Bare glass, or next to no tissue on it."""
    BLACK = "black"
    CONSTANT = "constant"
    TOO_SMALL = "too_small"
    """Fewer pixels than say anything about stains, however much of them is tissue."""
    ONE_STAIN = "one_stain"
    NOT_TISSUE = "not_tissue"


@dataclass(frozen=True)
class Refusal:
    """Why an image has no stains to be told apart."""

    status: StainStatus
    reason: str


def fit(
    image: RgbImage,
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
) -> StainReference:
    """Find the stains, their amounts and the white of one image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass in (0, 255]; estimated from the image where not given.
    source : str, default ""
        Where the image comes from; kept in the reference and named in errors.

    Raises
    ------
    StainError
        If the stain is unknown, or the image is blank, black, of one colour or one stain, or does
        not look like this stain.
    """
    found = try_fit(image, stain, parameters=parameters, white=white, source=source)
    return _or_raise(found, source)


def try_fit(
    image: RgbImage,
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
) -> StainReference | Refusal:
    """Do what `fit` does, and return what stands in the way instead of raising it.

    Parameters
    ----------
    image, stain, parameters, white, source
        As for `fit`.
    """
    return _try_fit(image, prior_of(stain), parameters, white, source)


def fit_many(
    images: Iterable[RgbImage],
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
) -> StainReference:
    """Find one set of stains for several images of one slide, from their pixels together.

    Parameters
    ----------
    images : iterable of ndarray of uint8, shape (H, W, 3)
        Read once; of each an even sample of up to 65,536 pixels is kept.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass; estimated from all images together where not given.
    source : str, default ""
        Name of the slide; kept in the reference and named in errors.

    Raises
    ------
    StainError
        As for `fit`, and if there are no images.
    """
    found = try_fit_many(images, stain, parameters=parameters, white=white, source=source)
    return _or_raise(found, source)


def try_fit_many(
    images: Iterable[RgbImage],
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
) -> StainReference | Refusal:
    """Do what `fit_many` does, and return what stands in the way instead of raising it.

    Parameters
    ----------
    images, stain, parameters, white, source
        As for `fit_many`.
    """
    samples = [_even_sample(image) for image in images]
    if not samples:
        return Refusal(StainStatus.BLANK, "there are no images to fit stains on")
    pooled = np.concatenate(samples)[np.newaxis]  # (1, n, 3)
    found = try_fit(pooled, stain, parameters=parameters, white=white, source=source)
    if isinstance(found, Refusal):
        return found
    return replace(found, n_sources=len(samples))


def check_tissue(image: RgbImage, source: StainReference) -> StainReference | Refusal:
    """Return the known stains of an image's slide, or why the image has no tissue to use them on.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    """
    pixels = checked_image(image)
    mask = tissue_mask(
        pixels, np.array(source.white), glass_lightness=source.parameters.glass_lightness
    )
    n_tissue = int(np.count_nonzero(mask))
    return source if n_tissue >= MIN_TISSUE_PX else _why_no_tissue(pixels, n_tissue)


def _or_raise(found: StainReference | Refusal, source: str) -> StainReference:
    if isinstance(found, Refusal):
        raise StainError(f"{found.status.value}: {found.reason}", where=source or None)
    return found


def _try_fit(
    image: RgbImage,
    prior: StainPrior,
    parameters: StainParameters,
    white: White | None,
    source: str,
) -> StainReference | Refusal:
    pixels = checked_image(image)
    level = estimate_white(pixels) if white is None else checked_white(white)
    tissue = find_tissue(pixels, level, glass_lightness=parameters.glass_lightness)
    density, n_tissue = tissue.density, tissue.density.shape[1]
    if n_tissue < MIN_TISSUE_PX:
        return _why_no_tissue(pixels, n_tissue)
    value = None
    try:
        if parameters.method == "vahadane":
            solved = solve_tissue(tissue, sparsity=parameters.sparsity)
            matrix, n_tissue = solved.stain_matrix, solved.n_px
            value = solved.objective / n_tissue
        else:
            matrix = macenko_stains(density)
            n_tissue = tissue.count()
    except StainError as error:
        constant = bool(np.all(pixels == pixels[0, 0]))
        return Refusal(StainStatus.CONSTANT if constant else StainStatus.ONE_STAIN, error.message)
    refusal = _gate(matrix, prior)
    if refusal is not None:
        return _with_ink(refusal, density)
    percentiles = _percentiles(density, matrix, parameters)
    if min(percentiles) < MIN_PERCENTILE:
        missing = prior.dyes[int(np.argmin(percentiles))]
        return Refusal(StainStatus.ONE_STAIN, f"there is next to no {missing}")
    lab_mean, lab_std = (
        lab_statistics(pixels, tissue_mask(pixels, level))
        if parameters.method == "reinhard"
        else (None, None)
    )
    return StainReference(
        stain=prior.stain,
        stain_vectors=(_three(matrix[:, 0]), _three(matrix[:, 1])),
        percentiles=percentiles,
        white=_three(level),
        source=source,
        parameters=parameters,
        objective=value,
        n_tissue_px=n_tissue,
        lab_mean=lab_mean,
        lab_std=lab_std,
    )


def _why_no_tissue(pixels: RgbImage, n_tissue: int) -> Refusal:
    n = pixels.shape[0] * pixels.shape[1]
    said = f"{n_tissue} of {n} pixels are tissue, at least {MIN_TISSUE_PX} are needed"
    brightest = int(pixels.max())
    if brightest <= 12:  # luminance of (12, 12, 12) is 0.0037: black with sensor noise
        return Refusal(StainStatus.BLACK, said)
    if bool(np.all(pixels == pixels[0, 0])):
        return Refusal(StainStatus.CONSTANT, f"every pixel is {pixels[0, 0].tolist()}")
    if n < MIN_TISSUE_PX:
        return Refusal(StainStatus.TOO_SMALL, said)
    is_black = not np.any(tissue_mask(pixels, 255.0, glass_lightness=1.0))
    return Refusal(StainStatus.BLACK if is_black else StainStatus.BLANK, said)


def _gate(matrix: FloatArray, prior: StainPrior) -> Refusal | None:
    """Refuse stains that are one, or that are not those of the prior."""
    if not np.all(np.isfinite(matrix)):
        return Refusal(StainStatus.ONE_STAIN, "the pixels do not determine two stains")
    separation = _degrees(matrix[:, 0], matrix[:, 1])
    if separation < MIN_SEPARATION_DEGREES:
        return Refusal(
            StainStatus.ONE_STAIN,
            f"the two stains are {separation:.1f} degrees apart, at least "
            f"{MIN_SEPARATION_DEGREES:g} are needed",
        )
    for column, (dye, limit) in enumerate(zip(prior.dyes, prior.max_angle_degrees, strict=True)):
        angle = _degrees(matrix[:, column], prior.stain_matrix[:, column])
        if angle > limit:
            return Refusal(
                StainStatus.NOT_TISSUE,
                f"what should be {dye} lies {angle:.0f} degrees from it, at most {limit:g} are "
                f"allowed: not {prior.stain}?",
            )
    return None


def _with_ink(refusal: Refusal, density: npt.NDArray[np.float32]) -> Refusal:
    """Add that marker ink is seen, which is a likelier cause than another stain."""
    red, green, _ = density
    is_ink = (red > INK_RED_OVER_GREEN * green) & (red > MIN_INK_DENSITY)
    share = float(np.mean(is_ink))
    if refusal.status is not StainStatus.NOT_TISSUE or share < MIN_INK_SHARE:
        return refusal
    return replace(
        refusal,
        reason=f"{refusal.reason} {share:.1%} of the tissue has the colour of green or teal marker "
        "ink: cut it off, or leave the image out",
    )


def _percentiles(
    density: npt.NDArray[np.float32], matrix: FloatArray, parameters: StainParameters
) -> tuple[float, float]:
    """Upper percentile of each stain over tissue, from a histogram."""
    found = np.empty(2)
    red, green, blue = density
    stains = np.ascontiguousarray(matrix.T)
    share = parameters.percentile / 100.0
    sparsity = parameters.coding_sparsity
    concentration_percentiles(red, green, blue, stains, sparsity, share, found)
    return float(found[0]), float(found[1])


def _even_sample(image: RgbImage) -> RgbImage:
    pixels = checked_image(image).reshape(-1, 3)
    # Odd, since JPEG repeats itself every eight pixels and so do most widths.
    return pixels[:: -(-len(pixels) // SAMPLE_PX_PER_IMAGE) | 1].copy()


def _degrees(one: FloatArray, other: FloatArray) -> float:
    return math.degrees(math.acos(min(max(float(one @ other), -1.0), 1.0)))


def _three(values: FloatArray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
