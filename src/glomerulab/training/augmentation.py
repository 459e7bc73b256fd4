"""Augmentation of images: rotation, flips, noise, mixup, and stain jitter.

`OnlineAugmentation` combines them for training; `glomerulab.pipeline.augment` writes augmented
files. Operations on tensors are pure functions of float tensors (3, H, W) in 0 to 1; random numbers
are drawn by the caller. `jitter_stains` varies amounts and colours of the stains and leaves glass
unchanged.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from glomerulab.images import RgbImage
from glomerulab.stain.fitting import FitFailure, try_fit
from glomerulab.stain.normalize import restain
from glomerulab.stain.optical_density import FloatArray, checked_image
from glomerulab.stain.reference import StainReference

__all__ = [
    "OnlineAugmentation",
    "StainJitter",
    "add_noise",
    "flip",
    "jitter_optical_density",
    "jitter_stains",
    "mix",
    "rotate",
]

DARKEST = 1.0 / 255.0
FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class StainJitter:
    """Ranges of the stain jitter."""

    amount: float = 0.25
    """Each stain's amounts are multiplied by a factor between 1/(1 + amount) and 1 + amount."""
    angle_degrees: float = 4.0
    """Standard deviation of the rotation of each stain vector."""
    white: float = 0.02
    """Light is multiplied by a factor between 1 - white and 1, one for all channels."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for a number that is negative or too large."""
        for name, highest in (("amount", 4.0), ("angle_degrees", 45.0), ("white", 0.5)):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0.0 <= value <= highest):
                raise ValueError(f"{name} must be in [0, {highest:g}], got {value}")


def jitter_stains(
    image: RgbImage,
    rng: np.random.Generator,
    *,
    stain: str,
    source: StainReference | None = None,
    jitter: StainJitter = StainJitter(),
) -> RgbImage:
    """Vary amount and colour of the two stains of an image, and the light.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        Never changed.
    rng : Generator
        The same state gives the same image.
    stain : str
        HE, PAS, PASM, TRI or H-DAB.
    source : StainReference, optional
        Stains of the image or its slide; fitted to the image by default.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array; an unchanged copy if the image does not have two stains.
    """
    pixels = checked_image(image)
    # Drawn before the fit, so that the generator advances equally if the fit fails.
    gains = (1.0 + jitter.amount) ** rng.uniform(-1.0, 1.0, 2)
    turns = rng.normal(0.0, math.radians(jitter.angle_degrees) / math.sqrt(2.0), (2, 3))
    light = 1.0 - jitter.white * rng.random()
    known = source if source is not None else try_fit(pixels, stain, check_stain=False)
    if isinstance(known, FitFailure):
        return pixels.copy()
    return restain(
        pixels,
        known,
        gains=gains,
        stains=_rotate_vectors(np.array(known.stain_vectors), turns),
        white=light * np.array(known.white),
    )


def _rotate_vectors(stains: FloatArray, turns: FloatArray) -> FloatArray:
    """Move each unit vector along its tangent plane; absorbance stays non-negative."""
    tangent = turns - np.sum(turns * stains, axis=1, keepdims=True) * stains
    moved = np.maximum(stains + tangent, 0.0)
    unit: FloatArray = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit


def rotate(image: Tensor, degrees: float, *, mode: str = "bilinear") -> Tensor:
    """Rotate an image about its centre, with reflection at its edges.

    Parameters
    ----------
    image : Tensor of float, shape (C, H, W)
    degrees : float
        Counter-clockwise. Multiples of 90 on square images move pixels without mixing them.
    mode : {"bilinear", "nearest"}, default "bilinear"
        ``nearest`` for masks.

    Returns
    -------
    Tensor of float, shape (C, H, W)
    """
    _, height, width = image.shape
    quarters = degrees / 90.0
    if height == width and quarters == round(quarters):
        return torch.rot90(image, round(quarters) % 4, dims=(1, 2))
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # affine_grid scales each axis to -1 to 1: correct for sides that differ.
    theta = torch.tensor(
        [[[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]],
        dtype=image.dtype,
    )
    grid = torch.nn.functional.affine_grid(theta, [1, *image.shape], align_corners=False)
    turned = torch.nn.functional.grid_sample(
        image[None], grid, mode=mode, padding_mode="reflection", align_corners=False
    )
    return turned[0]


def flip(image: Tensor, *, horizontally: bool, vertically: bool) -> Tensor:
    """Mirror an image, shape (C, H, W), along x, y, both or neither."""
    axes = [axis for axis, wanted in ((2, horizontally), (1, vertically)) if wanted]
    return image.flip(axes) if axes else image


def add_noise(image: Tensor, noise: Tensor) -> Tensor:
    """Add noise of the same shape and keep the result from 0 to 1."""
    return (image + noise).clamp(0.0, 1.0)


def mix(image: Tensor, partner: Tensor, share: float) -> Tensor:
    """Blend two images of the same labels (mixup, Zhang et al. 2018).

    Parameters
    ----------
    image, partner : Tensor of float, shape (3, H, W)
    share : float
        Weight of `image`, from 0 to 1.

    Returns
    -------
    Tensor of float, shape (3, H, W)

    Raises
    ------
    ValueError
        If the shapes differ or `share` is outside 0 to 1.
    """
    if image.shape != partner.shape:
        raise ValueError(f"shapes differ: {tuple(image.shape)} and {tuple(partner.shape)}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must be in [0, 1], got {share}")
    return share * image + (1.0 - share) * partner


def jitter_optical_density(image: Tensor, factors: Tensor) -> Tensor:
    """Scale the optical density of each channel, as section thickness and dye batches do.

    Parameters
    ----------
    image : Tensor of float, shape (3, H, W)
        White glass is 1.
    factors : Tensor of float, shape (3,)
        1 keeps a channel; 0 makes it white.

    Returns
    -------
    Tensor of float, shape (3, H, W)

    Notes
    -----
    Optical density is -log of transmittance, so scaling it is a power of transmittance. Ours, not
    the paper's; it needs no stain matrix and suits every stain.
    """
    return image.clamp(DARKEST, 1.0) ** factors[:, None, None]


class OnlineAugmentation(BaseModel):
    """Probabilities and ranges of the operations; calling it augments one image.

    The paper's operations are rotation, noise and same-class mixup. Ours, not the paper's: flips,
    jitter of the optical density, and of the two stains of the image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: float = Field(default=1.0, ge=0, le=1)
    """Share of images that are rotated, by any angle."""
    flips: bool = True
    """Mirror along each axis half of the time."""
    noise: float = Field(default=0.5, ge=0, le=1)
    """Share of images that get Gaussian noise."""
    noise_sigma: float = Field(default=0.03, ge=0, le=1)
    """Maximal standard deviation of the noise; white is 1."""
    mixup: float = Field(default=0.2, ge=0, le=1)
    """Share of images that are blended with another of the same labels."""
    mixup_alpha: float = Field(default=0.4, gt=0)
    """Parameter of the Beta distribution of the blend."""
    stain_jitter: float = Field(default=0.1, ge=0, lt=1)
    """Optical density of each channel is scaled by 1 ± up to this."""
    stain_amount: float = Field(default=0.0, ge=0, le=4)
    """Fitted amounts of each stain are multiplied or divided by up to 1 + this."""
    stain_angle: float = Field(default=0.0, ge=0, le=45)
    """Standard deviation of the rotation of each stain vector, degrees."""

    @property
    def two_stain_jitter(self) -> StainJitter | None:
        """Jitter of the two stains, which the data set applies before conversion to a tensor."""
        if not (self.stain_amount or self.stain_angle):
            return None
        return StainJitter(amount=self.stain_amount, angle_degrees=self.stain_angle, white=0.0)

    def __call__(
        self, image: Tensor, rng: np.random.Generator, partner: Callable[[int], Tensor]
    ) -> Tensor:
        """Augment one image.

        Parameters
        ----------
        image : Tensor of float, shape (3, H, W), in 0 to 1
        rng : Generator
            Source of every random number.
        partner : callable
            Maps any integer to an image of the same labels and shape.

        Returns
        -------
        Tensor of float, shape (3, H, W), in 0 to 1
        """
        if rng.random() < self.mixup:
            share = float(rng.beta(self.mixup_alpha, self.mixup_alpha))
            image = mix(image, partner(int(rng.integers(2**31))), share)
        image, _ = self._moved(image, None, rng)
        return self._recoloured(image, rng)

    def with_masks(
        self, image: Tensor, masks: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment an image, and move its masks as the image; without mixup.

        Parameters
        ----------
        image : Tensor of float, shape (3, H, W), in 0 to 1
        masks : Tensor of float, shape (C, H, W)
            Keep their values.
        rng : Generator
            Source of every random number.
        """
        image, moved = self._moved(image, masks, rng)
        return self._recoloured(image, rng), masks if moved is None else moved

    def _moved(
        self, image: Tensor, masks: Tensor | None, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        if self.flips:
            across, down = (bool(one) for one in rng.random(2) < FLIP_PROBABILITY)
            image = flip(image, horizontally=across, vertically=down)
            masks = None if masks is None else flip(masks, horizontally=across, vertically=down)
        if rng.random() < self.rotation:
            degrees = float(rng.uniform(-180.0, 180.0))
            image = rotate(image, degrees)
            masks = None if masks is None else rotate(masks, degrees, mode="nearest")
        return image, masks

    def _recoloured(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        if self.stain_jitter:
            factors = 1.0 + self.stain_jitter * rng.uniform(-1.0, 1.0, 3)
            image = jitter_optical_density(image, torch.from_numpy(factors).to(image.dtype))
        if rng.random() < self.noise:
            noise = rng.standard_normal(image.shape, dtype=np.float32)
            sigma = float(rng.uniform(0.0, self.noise_sigma))
            image = add_noise(image, torch.from_numpy(noise).to(image.dtype) * sigma)
        return image
