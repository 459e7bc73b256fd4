"""Stain normalisation of an image to a target, and its steps.

`transform` recolours with known stains; `normalize` fits them first and returns a status;
`separate` and `recompose` give the amounts of stain themselves.
"""

from dataclasses import dataclass

import numpy as np

from glomerulab.errors import StainError
from glomerulab.images import RgbImage
from glomerulab.stain.fitting import StainStatus, check_tissue, fit, try_fit
from glomerulab.stain.kernels.pixels import recolour
from glomerulab.stain.optical_density import (
    FloatArray,
    White,
    checked_image,
    optical_density,
    pixel_tables,
    tissue_mask,
    transmitted_light,
)
from glomerulab.stain.reference import RECOMMENDED, StainParameters, StainReference
from glomerulab.stain.reinhard import transfer_lab_statistics
from glomerulab.stain.separation import concentrations

__all__ = ["StainNormalizer", "normalize", "restain", "separate", "transform"]

CHANGED = frozenset({StainStatus.NORMALIZED, StainStatus.SLIDE_STAINS})
LACKS_OWN_STAINS = frozenset({StainStatus.ONE_STAIN, StainStatus.NOT_TISSUE})
"""Statuses of images with tissue that take the stains of their slide."""


@dataclass(frozen=True)
class Normalized:
    """An image after normalisation, with its status."""

    image: RgbImage
    """A new array; equal to the input unless `is_changed`."""
    status: StainStatus
    reason: str
    """Why the image is unchanged or its slide's stains were used; empty otherwise."""
    source: StainReference | None
    """The stains the image was separated with; None if it is unchanged."""

    @property
    def is_changed(self) -> bool:
        """Whether the image has the target's colours."""
        return self.status in CHANGED


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
    return restain(
        pixels,
        source,
        gains=np.array(target.percentiles) / np.array(source.percentiles),
        stains=np.array(target.stain_vectors),
        white=np.array(target.white),
    )


def normalize(
    image: RgbImage,
    target: StainReference,
    *,
    source: StainReference | None = None,
    white: White | None = None,
    fallback: StainReference | None = None,
    strict: bool = False,
) -> Normalized:
    """Recolour one image to a target, or return it unchanged with the reason.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    target : StainReference
        The image is fitted with its stain and parameters.
    source : StainReference, optional
        Stains of the image's slide, the same for all its crops; by default the image's own stains
        are fitted.
    white : float or ndarray of float, shape (3,), optional
        Grey level of unstained glass; estimated from the image by default.
    fallback : StainReference, optional
        Stains of the slide, used if the image has tissue but not two stains of its own.
    strict : bool, default False
        Raise an error instead of returning an unchanged image.

    Raises
    ------
    StainError
        If `strict` and the image cannot be normalised.
    """
    if source is not None:
        found = check_tissue(image, source)
    else:
        found = try_fit(
            image,
            target.stain,
            parameters=target.parameters,
            white=white,
            check_stain=not target.trusts_stain,
        )
    if isinstance(found, StainReference):
        return Normalized(transform(image, found, target), StainStatus.NORMALIZED, "", found)
    if fallback is not None and found.status in LACKS_OWN_STAINS:
        recoloured = transform(image, fallback, target)
        return Normalized(recoloured, StainStatus.SLIDE_STAINS, found.reason, fallback)
    if strict:
        raise StainError(f"{found.status.value}: {found.reason}")
    return Normalized(image.copy(), found.status, found.reason, None)


@dataclass(frozen=True)
class StainNormalizer:
    """`normalize` as a callable for a data loader: picklable, stateless, without torch.

    Examples
    --------
    >>> from glomerulab.phantom.crops import example_crop
    >>> normalizer = StainNormalizer.fit(example_crop("HE", seed=0).pixels, "HE")
    >>> image = example_crop("HE", seed=2).pixels
    >>> recoloured = normalizer(image)
    >>> recoloured.shape == image.shape and recoloured.dtype == image.dtype
    True
    """

    target: StainReference
    source: StainReference | None = None
    """Stains of the slide, if known."""
    fallback: StainReference | None = None
    strict: bool = False

    @classmethod
    def fit(
        cls,
        target: RgbImage,
        stain: str,
        *,
        parameters: StainParameters = RECOMMENDED,
        white: White | None = None,
    ) -> "StainNormalizer":
        """Return a normaliser to the stains of a target image; arguments as for `fitting.fit`."""
        return cls(fit(target, stain, parameters=parameters, white=white))

    def __call__(self, image: RgbImage) -> RgbImage:
        """Return the image in the target's colours, or a copy if it cannot be normalised."""
        result = normalize(
            image, self.target, source=self.source, fallback=self.fallback, strict=self.strict
        )
        return result.image


def separate(image: RgbImage, source: StainReference) -> FloatArray:
    """Return the amount of each stain in every pixel.

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
    """Convert amounts of stain to pixels.

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


def restain(
    image: RgbImage,
    source: StainReference,
    *,
    gains: FloatArray,
    stains: FloatArray,
    white: FloatArray,
) -> RgbImage:
    """Replace the known stains of an image by others, in one pass.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    source : StainReference
        Of the image or its slide.
    gains : ndarray of float, shape (2,)
        Factor on the amounts of each stain, at least 0.
    stains : ndarray of float, shape (2, 3)
        New stain vectors, a stain per row.
    white : ndarray of float, shape (3,)
        New grey level of unstained glass.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array.
    """
    pixels = checked_image(image)
    out = np.empty_like(pixels)
    flat = out.reshape(-1)
    recolour(
        pixels.reshape(-1, 3),
        pixel_tables(source.white)[2],
        np.array(source.stain_vectors),
        source.parameters.coding_sparsity,
        gains,
        stains,
        white,
        out.reshape(-1, 3),
        flat[: flat.size // 12 * 12].view("<u4"),
    )
    return out


def _transform_reinhard(
    pixels: RgbImage, source: StainReference, target: StainReference
) -> RgbImage:
    mask = tissue_mask(pixels, np.array(source.white))
    return transfer_lab_statistics(pixels, mask, source=_lab(source), target=_lab(target))


def _lab(reference: StainReference) -> tuple[FloatArray, FloatArray]:
    if reference.lab_mean is None or reference.lab_std is None:
        raise ValueError("the stain reference was not fitted with the method reinhard")
    return np.array(reference.lab_mean), np.array(reference.lab_std)


def _check_match(source: StainReference, target: StainReference) -> None:
    for name in ("stain", "parameters"):
        one, other = getattr(source, name), getattr(target, name)
        if one != other:
            raise ValueError(f"source and target differ in {name}: {one} and {other}")
