"""What the stains of a section are known to look like before any pixel is seen.

Each stain is two dyes, listed with the one of higher red absorbance first: that order holds for
every stain matrix in the package.
"""

from dataclasses import dataclass

import numpy as np

from glomerulab.errors import StainError
from glomerulab.stain.optical_density import FloatArray

__all__ = ["STAIN_PRIORS", "StainPrior", "prior_of"]


@dataclass(frozen=True)
class StainPrior:
    """The two dyes of a stain and how far an image may stray from them."""

    stain: str
    dyes: tuple[str, str]
    """Names of the columns."""
    vectors: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Absorbance in red, green, blue of each dye, any length."""
    min_separation_degrees: float
    """Two columns closer than this are one stain seen twice."""
    max_angle_degrees: tuple[float, float]
    """How far each column may lie from its dye."""

    @property
    def stain_matrix(self) -> FloatArray:
        """Columns of unit norm, shape (3, 2)."""
        columns = np.array(self.vectors, dtype=np.float64).T
        unit: FloatArray = columns / np.linalg.norm(columns, axis=0)
        return unit


STAIN_PRIORS = {
    prior.stain: prior
    for prior in (
        StainPrior(
            "HE",
            ("haematoxylin", "eosin"),
            ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
            6.0,
            (30.0, 30.0),
        ),
        StainPrior(
            "PAS",
            ("haematoxylin", "periodic acid-Schiff"),
            ((0.644, 0.717, 0.267), (0.175, 0.972, 0.155)),
            6.0,
            (30.0, 30.0),
        ),
        StainPrior(
            "PASM",
            ("haematoxylin", "silver"),
            ((0.65, 0.70, 0.29), (0.45, 0.60, 0.66)),
            6.0,
            (40.0, 40.0),
        ),
        StainPrior(
            "TRI",
            ("aniline blue", "ponceau-fuchsin"),
            ((0.800, 0.591, 0.105), (0.100, 0.737, 0.668)),
            6.0,
            (40.0, 40.0),
        ),
        StainPrior(
            "H-DAB",
            ("haematoxylin", "diaminobenzidine"),
            ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)),
            6.0,
            (30.0, 30.0),
        ),
    )
}
"""By name of the stain, as in the manifest's column ``stain``."""


def prior_of(stain: str) -> StainPrior:
    """Return the prior of a stain.

    Parameters
    ----------
    stain : str
        One of `STAIN_PRIORS`.

    Returns
    -------
    StainPrior

    Raises
    ------
    StainError
        If the stain is not known; the message lists those that are.
    """
    prior = STAIN_PRIORS.get(stain)
    if prior is None:
        known = ", ".join(STAIN_PRIORS)
        raise StainError(f"unknown stain {stain!r}; known are: {known}")
    return prior
