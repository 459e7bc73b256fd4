"""Stain vectors: the published ones, and what patients and laboratories make of them.

Pure numbers: natural-logarithm optical density, unit columns, haematoxylin first.
"""

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.materials import Stain

__all__ = ["StainMatrix", "angle_between", "draw_stain_matrix", "recompose"]

StainMatrix = npt.NDArray[np.float64]
"""Shape (3, 2): unit columns, haematoxylin and the second stain; rows red, green, blue."""

# Set after the vectors in common use: for haematoxylin and eosin those of Ruifrok & Johnston (2001)
# and of Macenko's reference slide (2009), for PAS those that ImageJ's colour deconvolution calls
# "H PAS", and a duller second one seen on our sections.
BLUES = np.array([[0.650, 0.704, 0.286], [0.563, 0.720, 0.406], [0.644, 0.717, 0.267]])
EOSINS = np.array([[0.072, 0.990, 0.105], [0.216, 0.801, 0.558]])
SCHIFFS = np.array([[0.175, 0.972, 0.155], [0.300, 0.860, 0.410]])
JITTER = 0.035


def draw_stain_matrix(stain: Stain, rng: np.random.Generator) -> StainMatrix:
    """Draw the stain matrix of one slide from between the published vectors.

    Parameters
    ----------
    stain : {"HE", "PAS"}
    rng : Generator

    Returns
    -------
    ndarray of float64, shape (3, 2)
        Unit columns, all components positive.
    """
    blue = rng.dirichlet([1.0, 0.5, 1.0]) @ BLUES
    share = rng.uniform(0.35, 1.0)
    ends = EOSINS if stain == "HE" else SCHIFFS
    second = (1.0 - share) * ends[0] + share * ends[1]
    columns = np.stack([blue, second], axis=1) + rng.normal(0.0, JITTER, (3, 2))
    columns = np.clip(columns, 0.02, None)
    return np.asarray(columns / np.linalg.norm(columns, axis=0))


def angle_between(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Return the angle between two stain vectors, in degrees."""
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def recompose(
    concentrations: npt.NDArray[np.floating],
    stain_matrix: npt.NDArray[np.floating],
    *,
    white: npt.ArrayLike = 255.0,
) -> npt.NDArray[np.float32]:
    """Turn concentrations into ideal light: no blur, no noise, no rounding.

    Parameters
    ----------
    concentrations : ndarray of float, shape (2, H, W)
    stain_matrix : ndarray of float, shape (3, 2)
        Of this slide, or any other: the same tissue as another laboratory would stain it.
    white : array_like, default 255.0
        Grey level of unstained glass, one number or one per channel.

    Returns
    -------
    ndarray of float32, shape (H, W, 3)
        ``white * exp(-W C)``, Beer-Lambert with the natural logarithm.

    Raises
    ------
    ValueError
        If a shape does not fit.
    """
    if concentrations.ndim != 3 or concentrations.shape[0] != 2:
        raise ValueError(f"concentrations must have shape (2, H, W), got {concentrations.shape}")
    if stain_matrix.shape != (3, 2):
        raise ValueError(f"stain_matrix must have shape (3, 2), got {stain_matrix.shape}")
    density = np.tensordot(
        concentrations, stain_matrix.astype(np.float32), axes=([0], [1])
    )  # (H, W, 3)
    np.exp(np.negative(density, out=density), out=density)
    density *= np.broadcast_to(np.asarray(white, dtype=np.float32), (3,))
    return np.asarray(density, dtype=np.float32)
