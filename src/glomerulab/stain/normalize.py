"""From an image and a target to the image in the target's colours, and every step between.

`fit` finds the stains of an image, `transform` recolours with known stains, `normalize` does both
and says what became of the image; `separate` and `recompose` give the amounts themselves.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from glomerulab.errors import StainError
from glomerulab.images import RgbImage
from glomerulab.stain._pixel_kernels import concentration_histogram, recolour
from glomerulab.stain.macenko import macenko_stains
from glomerulab.stain.optical_density import (
    FloatArray,
    checked_image,
    checked_white,
    estimate_white,
    optical_density,
    optical_density_table,
    transmitted_light,
)
from glomerulab.stain.parameters import RECOMMENDED, StainParameters
from glomerulab.stain.priors import MIN_SEPARATION_DEGREES, StainPrior, prior_of
from glomerulab.stain.reference import StainReference
from glomerulab.stain.reinhard import lab_statistics, transfer_lab_statistics
from glomerulab.stain.tissue import tissue_density, tissue_mask
from glomerulab.stain.vahadane import concentrations, solve

__all__ = [
    "MIN_TISSUE_PX",
    "Normalized",
    "Refusal",
    "StainStatus",
    "fit",
    "fit_many",
    "normalize",
    "recompose",
    "separate",
    "transform",
    "try_fit",
    "try_fit_many",
]

MIN_TISSUE_PX = 100
"""Fewer tissue pixels than this say nothing about stains."""

MIN_PERCENTILE = 0.05
"""A stain whose upper percentile of optical density is below this is not there."""

SAMPLE_PX_PER_IMAGE = 1 << 16
N_BINS = 8192
HIGHEST_CONCENTRATION = 10.0  # black in every channel is 9.6


class StainStatus(StrEnum):
    """What became of an image."""

    NORMALIZED = "normalized"
    SLIDE_STAINS = "slide_stains"
    """Its own stains could not be told apart; those of its slide were used."""
    BLANK = "blank"
    BLACK = "black"
    CONSTANT = "constant"
    ONE_STAIN = "one_stain"
    NOT_TISSUE = "not_tissue"


CHANGED = frozenset({StainStatus.NORMALIZED, StainStatus.SLIDE_STAINS})


@dataclass(frozen=True)
class Normalized:
    """An image after normalisation, and what was done to it."""

    image: RgbImage
    """A new array; equal to the input where `status` says that nothing was done."""
    status: StainStatus
    reason: str
    """Why the image was left as it is or took its slide's stains; empty otherwise."""
    source: StainReference | None
    """The stains the image was separated with; None where it was left as it is."""

    @property
    def is_changed(self) -> bool:
        """Whether the image carries the target's colours."""
        return self.status in CHANGED


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
    white: FloatArray | float | None = None,
    source: str = "",
) -> StainReference:
    """Find the stains, their amounts and the white of one image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    parameters : StainParameters, default `RECOMMENDED`
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass in (0, 255]; estimated from the image where not given.
    source : str, default ""
        Where the image comes from; kept in the reference and named in errors.

    Returns
    -------
    StainReference

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
    white: FloatArray | float | None = None,
    source: str = "",
) -> StainReference | Refusal:
    """Do what `fit` does, and return what stands in the way instead of raising it.

    Parameters
    ----------
    image, stain, parameters, white, source
        As for `fit`.

    Returns
    -------
    StainReference or Refusal
    """
    return _try_fit(image, prior_of(stain), parameters, white, source)


def fit_many(
    images: Iterable[RgbImage],
    stain: str,
    *,
    parameters: StainParameters = RECOMMENDED,
    white: FloatArray | float | None = None,
    source: str = "",
) -> StainReference:
    """Find one set of stains for several images of one slide, from their pixels together.

    Parameters
    ----------
    images : iterable of ndarray of uint8, shape (H, W, 3)
        Read once; of each an even sample of up to 65,536 pixels is kept.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    parameters : StainParameters, default `RECOMMENDED`
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass; estimated from all images together where not given.
    source : str, default ""
        Name of the slide; kept in the reference and named in errors.

    Returns
    -------
    StainReference

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
    white: FloatArray | float | None = None,
    source: str = "",
) -> StainReference | Refusal:
    """Do what `fit_many` does, and return what stands in the way instead of raising it.

    Parameters
    ----------
    images, stain, parameters, white, source
        As for `fit_many`.

    Returns
    -------
    StainReference or Refusal
    """
    samples = [_even_sample(image) for image in images]
    if not samples:
        return Refusal(StainStatus.BLANK, "there are no images to fit stains on")
    pooled = np.concatenate(samples)[np.newaxis]  # (1, n, 3)
    found = try_fit(pooled, stain, parameters=parameters, white=white, source=source)
    if isinstance(found, Refusal):
        return found
    return replace(found, n_sources=len(samples))


def transform(image: RgbImage, source: StainReference, target: StainReference) -> RgbImage:
    """Recolour an image whose stains are known.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    source : StainReference
        Of the image or its slide.
    target : StainReference
        Of the same stain, fitted with the same parameters.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array, rounded to the nearest grey level.

    Raises
    ------
    ValueError
        If source and target are of different stains or parameters.
    """
    _check_match(source, target)
    pixels = checked_image(image)
    if target.parameters.method == "reinhard":
        return _transform_reinhard(pixels, source, target)
    out = np.empty_like(pixels)
    recolour(
        pixels.reshape(-1, 3),
        optical_density_table(np.array(source.white)).astype(np.float32),
        np.array(source.stain_vectors),
        source.parameters.coding_sparsity,
        np.array(target.percentiles) / np.array(source.percentiles),
        np.array(target.stain_vectors),
        np.array(target.white),
        out.reshape(-1, 3),
    )
    return out


def normalize(
    image: RgbImage,
    target: StainReference,
    *,
    source: StainReference | None = None,
    white: FloatArray | float | None = None,
    fallback: StainReference | None = None,
    strict: bool = False,
) -> Normalized:
    """Bring one image to the colours of a target, or leave it and say why.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    target : StainReference
        Its stain and parameters are those the image is fitted with.
    source : StainReference, optional
        Stains of the image's slide, to be used for every crop of it; by default the image's own
        are fitted.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass; estimated from the image where not given.
    fallback : StainReference, optional
        Stains of the slide, used where the image shows tissue but not two stains.
    strict : bool, default False
        Raise where the image would be left as it is.

    Returns
    -------
    Normalized

    Raises
    ------
    StainError
        If `strict` and the image cannot be normalised.
    """
    if source is not None:
        found = _check_tissue(image, source)
    else:
        found = _try_fit(image, prior_of(target.stain), target.parameters, white, "")
    if isinstance(found, StainReference):
        return Normalized(transform(image, found, target), StainStatus.NORMALIZED, "", found)
    if fallback is not None and found.status in {StainStatus.ONE_STAIN, StainStatus.NOT_TISSUE}:
        recoloured = transform(image, fallback, target)
        return Normalized(recoloured, StainStatus.SLIDE_STAINS, found.reason, fallback)
    if strict:
        raise StainError(f"{found.status.value}: {found.reason}")
    return Normalized(image.copy(), found.status, found.reason, None)


def separate(image: RgbImage, source: StainReference) -> FloatArray:
    """Return how much of each stain every pixel holds.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    source : StainReference
        Of the image or its slide.

    Returns
    -------
    ndarray of float64, shape (H, W, 2)
        Amounts (H of the paper's eq. 9) in units of optical density, in the order of
        ``source.stain_matrix``.
    """
    density = optical_density(checked_image(image), np.array(source.white))
    sparsity = source.parameters.coding_sparsity
    return concentrations(density, source.stain_matrix, sparsity=sparsity)


def recompose(
    amounts: FloatArray, stain_matrix: FloatArray, *, white: FloatArray | float = 255.0
) -> RgbImage:
    """Turn amounts of stain back into pixels.

    Parameters
    ----------
    amounts : ndarray of float, shape (H, W, 2)
    stain_matrix : ndarray of float, shape (3, 2)
    white : float or ndarray of float, shape (3,), default 255.0

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
    """
    return transmitted_light(amounts @ stain_matrix.T, white)


def _or_raise(found: StainReference | Refusal, source: str) -> StainReference:
    if isinstance(found, Refusal):
        raise StainError(f"{found.status.value}: {found.reason}", where=source or None)
    return found


def _try_fit(
    image: RgbImage,
    prior: StainPrior,
    parameters: StainParameters,
    white: FloatArray | float | None,
    source: str,
) -> StainReference | Refusal:
    pixels = checked_image(image)
    level = estimate_white(pixels) if white is None else checked_white(white)
    density = tissue_density(pixels, level, glass_lightness=parameters.glass_lightness)
    n_tissue = density.shape[1]
    if n_tissue < MIN_TISSUE_PX:
        return _why_no_tissue(pixels, n_tissue)
    value = None
    try:
        if parameters.method == "vahadane":
            solved = solve(density, sparsity=parameters.sparsity)
            matrix, value = solved.stain_matrix, solved.objective / n_tissue
        else:
            matrix = macenko_stains(density)
    except StainError as error:
        constant = bool(np.all(pixels == pixels[0, 0]))
        return Refusal(StainStatus.CONSTANT if constant else StainStatus.ONE_STAIN, error.message)
    refusal = _gate(matrix, prior)
    if refusal is not None:
        return refusal
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


def _check_tissue(image: RgbImage, source: StainReference) -> StainReference | Refusal:
    pixels = checked_image(image)
    mask = tissue_mask(
        pixels, np.array(source.white), glass_lightness=source.parameters.glass_lightness
    )
    n_tissue = int(np.count_nonzero(mask))
    return source if n_tissue >= MIN_TISSUE_PX else _why_no_tissue(pixels, n_tissue)


def _why_no_tissue(pixels: RgbImage, n_tissue: int) -> Refusal:
    n = pixels.shape[0] * pixels.shape[1]
    said = f"{n_tissue} of {n} pixels are tissue, at least {MIN_TISSUE_PX} are needed"
    brightest = int(pixels.max())
    if brightest <= 12:  # luminance of (12, 12, 12) is 0.0037: black with sensor noise
        return Refusal(StainStatus.BLACK, said)
    if bool(np.all(pixels == pixels[0, 0])):
        return Refusal(StainStatus.CONSTANT, f"every pixel is {pixels[0, 0].tolist()}")
    is_black = not np.any(tissue_mask(pixels, 255.0, glass_lightness=1.0))
    return Refusal(StainStatus.BLACK if is_black else StainStatus.BLANK, said)


def _gate(matrix: FloatArray, prior: StainPrior) -> Refusal | None:
    """Refuse stains that are one, or that are not those of the prior."""
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


def _percentiles(
    density: npt.NDArray[np.float32], matrix: FloatArray, parameters: StainParameters
) -> tuple[float, float]:
    """Upper percentile of each stain over tissue, from a histogram."""
    counts = np.empty((2, 2, N_BINS), np.int64)
    per_unit = N_BINS / HIGHEST_CONCENTRATION
    stains = np.ascontiguousarray(matrix.T)
    sparsity = parameters.coding_sparsity
    red, green, blue = density
    concentration_histogram(red, green, blue, stains, sparsity, per_unit, counts)
    rank = parameters.percentile / 100.0 * density.shape[1]
    found = []
    for row in counts.sum(axis=1):
        below = np.cumsum(row)
        place = int(np.searchsorted(below, rank))
        before = below[place - 1] if place else 0
        found.append((place + (rank - before) / max(row[place], 1)) / per_unit)
    return float(found[0]), float(found[1])


def _transform_reinhard(
    pixels: RgbImage, source: StainReference, target: StainReference
) -> RgbImage:
    mask = tissue_mask(pixels, np.array(source.white))
    return transfer_lab_statistics(pixels, mask, source=_lab(source), target=_lab(target))


def _lab(reference: StainReference) -> tuple[FloatArray, FloatArray]:
    if reference.lab_mean is None or reference.lab_std is None:
        raise ValueError("this reference was not fitted with method reinhard")
    return np.array(reference.lab_mean), np.array(reference.lab_std)


def _check_match(source: StainReference, target: StainReference) -> None:
    for name in ("stain", "parameters"):
        one, other = getattr(source, name), getattr(target, name)
        if one != other:
            raise ValueError(f"source and target differ in {name}: {one} and {other}")


def _even_sample(image: RgbImage) -> RgbImage:
    pixels = checked_image(image).reshape(-1, 3)
    return pixels[:: max(1, -(-len(pixels) // SAMPLE_PX_PER_IMAGE))].copy()


def _degrees(one: FloatArray, other: FloatArray) -> float:
    return math.degrees(math.acos(min(max(float(one @ other), -1.0), 1.0)))


def _three(values: FloatArray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
