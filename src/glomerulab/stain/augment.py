"""Stain augmentation: the same tissue as if it were stained a little differently.

Amounts of stain and the stains' colours are jittered in the space of the stain matrix; glass stays
glass. The literature finds that this often serves training better than normalisation does.
"""

import math
from dataclasses import dataclass

import numpy as np

from glomerulab.images import RgbImage
from glomerulab.stain.fitting import Refusal, try_fit
from glomerulab.stain.normalize import recompose_with
from glomerulab.stain.optical_density import FloatArray, checked_image
from glomerulab.stain.reference import StainReference

__all__ = ["StainJitter", "jitter_stains"]


@dataclass(frozen=True)
class StainJitter:
    """How far stains are varied."""

    amount: float = 0.25
    """Each stain's amounts are multiplied by a factor between 1/(1 + amount) and 1 + amount."""
    angle_degrees: float = 4.0
    """Standard deviation of the turn of each stain's colour."""
    white: float = 0.02
    """Light is multiplied by a factor between 1 - white and 1, one for all channels."""

    def __post_init__(self) -> None:
        """Refuse values out of range.

        Raises
        ------
        ValueError
            If a number is negative or too large to leave an image.
        """
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
        Stains of the image or its slide; fitted where not given.
    jitter : StainJitter

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array; a plain copy where the image has no two stains to vary (blank, black, one
        stain).
    """
    pixels = checked_image(image)
    # Drawn before anything can fail, so that the generator moves on by the same amount.
    gains = (1.0 + jitter.amount) ** rng.uniform(-1.0, 1.0, 2)
    turns = rng.normal(0.0, math.radians(jitter.angle_degrees) / math.sqrt(2.0), (2, 3))
    light = 1.0 - jitter.white * rng.random()
    known = source if source is not None else try_fit(pixels, stain)
    if isinstance(known, Refusal):
        return pixels.copy()
    return recompose_with(
        pixels,
        known,
        gains=gains,
        stains=_turned(np.array(known.stain_vectors), turns),
        white=light * np.array(known.white),
    )


def _turned(stains: FloatArray, turns: FloatArray) -> FloatArray:
    """Move each unit vector along its tangent plane; absorbance stays non-negative."""
    tangent = turns - np.sum(turns * stains, axis=1, keepdims=True) * stains
    moved = np.maximum(stains + tangent, 0.0)
    unit: FloatArray = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit
