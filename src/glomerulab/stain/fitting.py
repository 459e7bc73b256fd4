"""Fit of the stains of an image, with a status where it has no two stains.

`glomerulab.stain.normalize` recolours with the result.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from glomerulab.errors import StainError
from glomerulab.images import RgbImage
from glomerulab.stain.identity import looks_like, signature
from glomerulab.stain.kernels.pixels import concentration_percentiles
from glomerulab.stain.optical_density import (
    FloatArray,
    White,
    checked_image,
    checked_white,
    estimate_white,
    find_tissue,
    tissue_mask,
    triple,
)
from glomerulab.stain.reference import (
    MIN_SEPARATION_DEGREES,
    RECOMMENDED,
    StainParameters,
    StainPrior,
    StainReference,
    stain_prior,
)
from glomerulab.stain.reinhard import lab_statistics
from glomerulab.stain.separation import even_sample, macenko_stains, solve, solve_tissue

__all__ = ["FitFailure", "StainStatus", "fit", "fit_many", "try_fit", "try_fit_many"]

MIN_TISSUE_PX = 100
"""Minimal number of tissue pixels for a fit."""

MIN_PERCENTILE = 0.05
"""Minimal upper percentile of optical density of a stain that is present."""

SAMPLE_PX_PER_IMAGE = 1 << 16
IDENTITY_SAMPLE_PX = 1 << 14

# Green and teal ink absorbs far more red than green light; no dye of a prior does. On the rejected
# crops of a real slide with teal ink, it covers 0.9 % to 14 % of the tissue; on real HE, PAS and
# silver without ink the same criterion finds 0.24 % at most.
INK_RED_OVER_GREEN = 2.0
MIN_INK_DENSITY = 0.2
MIN_INK_SHARE = 0.005


class StainStatus(StrEnum):
    """Result of a fit or normalisation."""

    NORMALIZED = "normalized"
    SLIDE_STAINS = "slide_stains"
    """Its own stains could not be separated; those of its slide were used."""
    BLANK = "blank"
    """Bare glass, or too little tissue."""
    BLACK = "black"
    CONSTANT = "constant"
    TOO_SMALL = "too_small"
    """Too few pixels for a fit, even if all were tissue."""
    ONE_STAIN = "one_stain"
    NOT_TISSUE = "not_tissue"
    OTHER_STAIN = "other_stain"
    """It looks like another stain than the stated one."""


@dataclass(frozen=True)
class FitFailure:
    """Why no two stains were fitted to an image."""

    status: StainStatus
    reason: str


def fit(
    image: RgbImage,
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
    check_stain: bool = True,
) -> StainReference:
    """Fit the stains, their amounts and the white of one image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass in (0, 255]; estimated from the image by default.
    source : str, default ""
        Origin of the image; kept in the reference and named in errors.
    check_stain : bool, default True
        Fail where another stain is clearly likelier (`glomerulab.stain.identity`).

    Raises
    ------
    StainError
        If the stain is unknown, or the image is blank, black, of one colour or one stain, or does
        not look like this stain.
    """
    found = try_fit(
        image,
        stain,
        parameters=parameters,
        white=white,
        source=source,
        check_stain=check_stain,
    )
    return _raise_failure(found, source)


def try_fit(
    image: RgbImage,
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
    check_stain: bool = True,
) -> StainReference | FitFailure:
    """Fit as `fit` does, and return a failure instead of raising it."""
    prior = stain_prior(stain)
    pixels = checked_image(image)
    level = estimate_white(pixels) if white is None else checked_white(white)
    tissue = find_tissue(pixels, level, glass_lightness=parameters.glass_lightness)
    density, n_tissue = tissue.density, tissue.density.shape[1]
    if n_tissue < MIN_TISSUE_PX:
        return _no_tissue_failure(pixels, n_tissue)
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
        return FitFailure(
            StainStatus.CONSTANT if constant else StainStatus.ONE_STAIN, error.message
        )
    failure = _check_stains(matrix, prior)
    if failure is not None:
        return _with_ink(failure, density)
    percentiles = _percentiles(density, matrix, parameters)
    if min(percentiles) < MIN_PERCENTILE:
        missing = prior.dyes[int(np.argmin(percentiles))]
        return FitFailure(StainStatus.ONE_STAIN, f"there is almost no {missing}")
    if check_stain:
        failure = _check_identity(density, matrix, percentiles, parameters, prior.stain)
        if failure is not None:
            return failure
    lab_mean, lab_std = (
        lab_statistics(pixels, tissue_mask(pixels, level))
        if parameters.method == "reinhard"
        else (None, None)
    )
    return StainReference(
        stain=prior.stain,
        stain_vectors=(triple(matrix[:, 0]), triple(matrix[:, 1])),
        percentiles=percentiles,
        white=triple(level),
        source=source,
        parameters=parameters,
        objective=value,
        n_tissue_px=n_tissue,
        lab_mean=lab_mean,
        lab_std=lab_std,
    )


def fit_many(
    images: Iterable[RgbImage],
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
    check_stain: bool = True,
) -> StainReference:
    """Fit one set of stains to the pooled pixels of several images of one slide.

    Parameters
    ----------
    images : iterable of ndarray of uint8, shape (H, W, 3)
        Read once; of each an even sample of up to 65,536 pixels is kept.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass; estimated from all images together by default.
    source : str, default ""
        Name of the slide; kept in the reference and named in errors.
    check_stain : bool, default True
        As for `fit`.

    Raises
    ------
    StainError
        As for `fit`, and if there are no images.
    """
    found = try_fit_many(
        images,
        stain,
        parameters=parameters,
        white=white,
        source=source,
        check_stain=check_stain,
    )
    return _raise_failure(found, source)


def try_fit_many(
    images: Iterable[RgbImage],
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: White | None = None,
    source: str = "",
    check_stain: bool = True,
) -> StainReference | FitFailure:
    """Fit as `fit_many` does, and return a failure instead of raising it."""
    samples = [_even_sample(image) for image in images]
    if not samples:
        return FitFailure(StainStatus.BLANK, "there are no images to fit stains to")
    pooled = np.concatenate(samples)[np.newaxis]  # (1, n, 3)
    found = try_fit(
        pooled,
        stain,
        parameters=parameters,
        white=white,
        source=source,
        check_stain=check_stain,
    )
    if isinstance(found, FitFailure):
        return found
    return replace(found, n_sources=len(samples))


def check_tissue(image: RgbImage, source: StainReference) -> StainReference | FitFailure:
    """Return the stains of the image's slide, or a failure if the image has too little tissue."""
    pixels = checked_image(image)
    mask = tissue_mask(
        pixels, np.array(source.white), glass_lightness=source.parameters.glass_lightness
    )
    n_tissue = int(np.count_nonzero(mask))
    return source if n_tissue >= MIN_TISSUE_PX else _no_tissue_failure(pixels, n_tissue)


def _raise_failure(found: StainReference | FitFailure, source: str) -> StainReference:
    if isinstance(found, FitFailure):
        raise StainError(f"{found.status.value}: {found.reason}", where=source or None)
    return found


def _no_tissue_failure(pixels: RgbImage, n_tissue: int) -> FitFailure:
    n = pixels.shape[0] * pixels.shape[1]
    counts = f"{n_tissue} of {n} pixels are tissue, at least {MIN_TISSUE_PX} are needed"
    brightest = int(pixels.max())
    if brightest <= 12:  # luminance of (12, 12, 12) is 0.0037: black with sensor noise
        return FitFailure(StainStatus.BLACK, counts)
    if bool(np.all(pixels == pixels[0, 0])):
        return FitFailure(StainStatus.CONSTANT, f"every pixel is {pixels[0, 0].tolist()}")
    if n < MIN_TISSUE_PX:
        return FitFailure(StainStatus.TOO_SMALL, counts)
    is_black = not np.any(tissue_mask(pixels, 255.0, glass_lightness=1.0))
    return FitFailure(StainStatus.BLACK if is_black else StainStatus.BLANK, counts)


def _check_stains(matrix: FloatArray, prior: StainPrior) -> FitFailure | None:
    """Return a failure for stains that coincide or do not match the prior."""
    if not np.all(np.isfinite(matrix)):
        return FitFailure(StainStatus.ONE_STAIN, "the pixels do not determine two stains")
    separation = _degrees(matrix[:, 0], matrix[:, 1])
    if separation < MIN_SEPARATION_DEGREES:
        return FitFailure(
            StainStatus.ONE_STAIN,
            f"the two stains are {separation:.1f} degrees apart, at least "
            f"{MIN_SEPARATION_DEGREES:g} are needed",
        )
    for column, (dye, limit) in enumerate(zip(prior.dyes, prior.max_angle_degrees, strict=True)):
        angle = _degrees(matrix[:, column], prior.stain_matrix[:, column])
        if angle > limit:
            return FitFailure(
                StainStatus.NOT_TISSUE,
                f"the stain fitted as {dye} is {angle:.0f} degrees away from it, at most {limit:g} "
                f"are allowed; is the stain {prior.stain}?",
            )
    return None


def _check_identity(
    density: npt.NDArray[np.float32],
    matrix: FloatArray,
    percentiles: tuple[float, float],
    parameters: StainParameters,
    stain: str,
) -> FitFailure | None:
    """Return a failure for an image that looks like another stain than the stated one."""
    if parameters != replace(RECOMMENDED, glass_lightness=parameters.glass_lightness):
        # Signatures were measured with the recommended parameters.
        sample = even_sample(density, IDENTITY_SAMPLE_PX)
        try:
            matrix = solve(sample, sparsity=RECOMMENDED.sparsity).stain_matrix
        except StainError:
            return None
        percentiles = _percentiles(sample, matrix, RECOMMENDED)
    other = looks_like(signature(density, matrix, percentiles), stain)
    if other is None:
        return None
    name, odds = other
    times = f"{odds:.0f}" if odds < 1000.0 else "over 1000"
    return FitFailure(
        StainStatus.OTHER_STAIN,
        f"its colours are {times} times likelier for {name} than for {stain}; correct the stain, "
        "or exclude the image",
    )


def _with_ink(failure: FitFailure, density: npt.NDArray[np.float32]) -> FitFailure:
    """Add to the reason that marker ink was found, a likelier cause than another stain."""
    red, green, _ = density
    is_ink = (red > INK_RED_OVER_GREEN * green) & (red > MIN_INK_DENSITY)
    share = float(np.mean(is_ink))
    if failure.status is not StainStatus.NOT_TISSUE or share < MIN_INK_SHARE:
        return failure
    return replace(
        failure,
        reason=f"{failure.reason} {share:.1%} of the tissue has the colour of green or teal marker "
        "ink; crop it off, or exclude the image",
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
