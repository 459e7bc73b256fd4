"""Which stain an image looks like, from the stains fitted to it and its darkest tissue.

The signature of an image is seven numbers, none of which depends on how strong the stain is. Of
each stain the package holds their mean and covariance over real images (``signatures.json``,
written by ``benchmarks/stain_identity.py``).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from glomerulab.stain.optical_density import FloatArray
from glomerulab.stain.separation import even_sample

__all__ = ["SIGNATURE_NAMES", "Signatures", "looks_like", "signature"]

SIGNATURE_NAMES = (
    "first_red",
    "first_blue",
    "second_red",
    "second_blue",
    "amount_ratio",
    "darkest_red",
    "darkest_blue",
)
"""Absorbance in red and blue, relative to green, of both stains and of the darkest tenth of the
tissue, and the ratio of the stains' upper percentiles; all as natural logarithms."""

DARKEST_SHARE = 0.1
DARKEST_SAMPLE_PX = 1 << 12
OFFSET = 0.05  # added to the channels of a unit vector, one of which may absorb nothing
DEGREES_OF_FREEDOM = 4.0  # of the multivariate t: laboratories differ more than a Gaussian allows
MIN_ODDS = 10.0
"""How many times likelier than the stated stain another must be to be reported."""


@dataclass(frozen=True)
class Signatures:
    """Mean and covariance of the signature, by stain."""

    means: Mapping[str, FloatArray]
    """Shape (7,)."""
    covariances: Mapping[str, FloatArray]
    """Shape (7, 7)."""

    def log_likelihoods(self, found: FloatArray) -> dict[str, float]:
        """Return the logarithm of the density of a signature under each stain."""
        n = len(SIGNATURE_NAMES)
        result = {}
        for stain, mean in self.means.items():
            covariance = self.covariances[stain]
            offset = found - mean
            distance = float(offset @ np.linalg.solve(covariance, offset))
            spread = float(np.linalg.slogdet(covariance)[1])
            scaled = (DEGREES_OF_FREEDOM + n) * math.log1p(distance / DEGREES_OF_FREEDOM)
            result[stain] = -0.5 * (spread + scaled)
        return result


def signature(
    density: npt.NDArray[np.float32], stain_matrix: FloatArray, percentiles: tuple[float, float]
) -> FloatArray:
    """Return the signature of an image, shape (7,), in the order of `SIGNATURE_NAMES`.

    Parameters
    ----------
    density : ndarray of float32, shape (3, n)
        Optical density of tissue pixels.
    stain_matrix : ndarray of float, shape (3, 2)
        Fitted with the recommended parameters.
    percentiles : tuple of float
        Upper percentile of each stain's amount, above 0.
    """
    sample = even_sample(density, DARKEST_SAMPLE_PX)
    total = sample.sum(axis=0)
    n_darkest = max(1, round(DARKEST_SHARE * len(total)))
    darkest = sample[:, np.argpartition(total, -n_darkest)[-n_darkest:]].mean(axis=1)
    colours = np.stack([stain_matrix[:, 0], stain_matrix[:, 1], darkest]).astype(np.float64)
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    logs = np.log(colours + OFFSET)  # (3, 3)
    red, blue = logs[:, 0] - logs[:, 1], logs[:, 2] - logs[:, 1]
    ratio = math.log(percentiles[0] / percentiles[1])
    return np.array([red[0], blue[0], red[1], blue[1], ratio, red[2], blue[2]])


def looks_like(
    found: FloatArray, stain: str, signatures: Signatures | None = None
) -> tuple[str, float] | None:
    """Return the stain that explains a signature clearly better than the stated one.

    Parameters
    ----------
    found : ndarray of float, shape (7,)
        As `signature` returns it.
    stain : str
        The stated stain.
    signatures : Signatures, optional
        Those of the package by default.

    Returns
    -------
    tuple of str and float, or None
        The likeliest stain and how many times likelier it is; None where no other stain is at
        least `MIN_ODDS` times likelier.
    """
    likelihoods = (signatures or shipped_signatures()).log_likelihoods(found)
    likeliest = max(likelihoods, key=lambda one: likelihoods[one])
    odds = math.exp(min(likelihoods[likeliest] - likelihoods[stain], 50.0))
    return (likeliest, odds) if odds >= MIN_ODDS else None


@lru_cache(maxsize=1)
def shipped_signatures() -> Signatures:
    """Read the signatures of the package."""
    text = files("glomerulab.stain").joinpath("signatures.json").read_text(encoding="utf-8")
    content = json.loads(text)["stains"]
    return Signatures(
        {stain: np.array(one["mean"]) for stain, one in content.items()},
        {stain: np.array(one["covariance"]) for stain, one in content.items()},
    )
