"""What the stains of a section are known to look like before any pixel is seen.

Each stain is two dyes, listed with the one of higher red absorbance first: that order holds for
every stain matrix in the package.
"""

from dataclasses import dataclass

import numpy as np

from glomerulab.errors import StainError
from glomerulab.stain.optical_density import FloatArray

__all__ = ["MIN_SEPARATION_DEGREES", "STAIN_PRIORS", "StainPrior", "prior_of"]


MIN_SEPARATION_DEGREES = 10.0
"""Two columns closer than this are one stain seen twice."""


@dataclass(frozen=True)
class StainPrior:
    """The two dyes of a stain and how far an image may stray from them."""

    stain: str
    dyes: tuple[str, str]
    """Names of the columns."""
    vectors: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Absorbance in red, green, blue of each dye, any length."""
    max_angle_degrees: tuple[float, float]
    """How far each column may lie from its dye."""

    @property
    def stain_matrix(self) -> FloatArray:
        """Columns of unit norm, shape (3, 2)."""
        columns = np.array(self.vectors, dtype=np.float64).T
        unit: FloatArray = columns / np.linalg.norm(columns, axis=0)
        return unit


HAEMATOXYLIN = (0.61, 0.71, 0.35)
EOSIN = (0.15, 0.93, 0.35)
# Midway between the two published pairs: Ruifrok & Johnston 2001 (as in ImageJ) and Macenko 2009.
# Schiff, silver and trichrome: means over public renal sections, see the decision page 0041.

STAIN_PRIORS = {
    prior.stain: prior
    for prior in (
        StainPrior("HE", ("haematoxylin", "eosin"), (HAEMATOXYLIN, EOSIN), (26.0, 30.0)),
        StainPrior(
            "PAS",
            ("haematoxylin", "periodic acid-Schiff"),
            (HAEMATOXYLIN, (0.34, 0.89, 0.29)),
            (26.0, 26.0),
        ),
        StainPrior(
            "PASM", ("silver", "eosin"), ((0.59, 0.62, 0.52), (0.20, 0.91, 0.35)), (26.0, 22.0)
        ),
        StainPrior(
            "TRI",
            ("aniline blue", "ponceau-fuchsin"),
            ((0.76, 0.59, 0.27), (0.18, 0.81, 0.55)),
            (30.0, 30.0),
        ),
        StainPrior(
            "H-DAB",
            ("haematoxylin", "diaminobenzidine"),
            (HAEMATOXYLIN, (0.27, 0.57, 0.78)),
            (26.0, 30.0),
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
