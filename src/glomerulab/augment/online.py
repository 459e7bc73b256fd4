"""Augmentation while training: each image is changed anew every time it is seen."""

from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from glomerulab.augment.operations import (
    add_noise,
    flip,
    jitter_optical_density,
    mix,
    rotate,
)
from glomerulab.stain.augment import StainJitter

__all__ = ["OnlineAugmentation"]

BOTH_WAYS = 0.5


class OnlineAugmentation(BaseModel):
    """How often and how far images are changed; calling it changes one.

    The paper's operations are rotation, noise and same-class mixup. Ours, not the paper's: flips,
    jitter of the optical density, and of the two stains of the image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: float = Field(default=1.0, ge=0, le=1)
    """Share of images that are turned, by any angle."""
    flips: bool = True
    """Mirror along each axis half of the time."""
    noise: float = Field(default=0.5, ge=0, le=1)
    """Share of images that get Gaussian noise."""
    noise_sigma: float = Field(default=0.03, ge=0, le=1)
    """Largest standard deviation of the noise; white is 1."""
    mixup: float = Field(default=0.2, ge=0, le=1)
    """Share of images that are blended with another of the same labels."""
    mixup_alpha: float = Field(default=0.4, gt=0)
    """Of the Beta distribution of the blend."""
    stain_jitter: float = Field(default=0.1, ge=0, lt=1)
    """Optical density of each channel is scaled by 1 ± up to this."""
    stain_amount: float = Field(default=0.0, ge=0, le=4)
    """Amounts of each stain, found in the image, are multiplied or divided by up to 1 + this."""
    stain_angle: float = Field(default=0.0, ge=0, le=45)
    """Standard deviation of the turn of each stain's colour, degrees."""

    @property
    def restaining(self) -> StainJitter | None:
        """What the data set does to the stains of an image, before it becomes a tensor."""
        if not (self.stain_amount or self.stain_angle):
            return None
        return StainJitter(amount=self.stain_amount, angle_degrees=self.stain_angle, white=0.0)

    def __call__(
        self, image: Tensor, rng: np.random.Generator, partner: Callable[[int], Tensor]
    ) -> Tensor:
        """Change one image.

        Parameters
        ----------
        image : Tensor of float, shape (3, H, W), in 0 to 1
        rng : Generator
            Every choice comes from it.
        partner : callable
            Takes any integer, gives an image of the same labels and shape.

        Returns
        -------
        Tensor of float, shape (3, H, W), in 0 to 1
        """
        if rng.random() < self.mixup:
            share = float(rng.beta(self.mixup_alpha, self.mixup_alpha))
            image = mix(image, partner(int(rng.integers(2**31))), share)
        if self.flips:
            across, down = rng.random(2) < BOTH_WAYS
            image = flip(image, horizontally=bool(across), vertically=bool(down))
        if rng.random() < self.rotation:
            image = rotate(image, float(rng.uniform(-180.0, 180.0)))
        if self.stain_jitter:
            factors = 1.0 + self.stain_jitter * rng.uniform(-1.0, 1.0, 3)
            image = jitter_optical_density(image, torch.from_numpy(factors).to(image.dtype))
        if rng.random() < self.noise:
            noise = rng.standard_normal(image.shape, dtype=np.float32)
            sigma = float(rng.uniform(0.0, self.noise_sigma))
            image = add_noise(image, torch.from_numpy(noise).to(image.dtype) * sigma)
        return image
