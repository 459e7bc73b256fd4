"""Stain vectors, and the stain uptake of the parts of a kidney.

Natural-logarithm optical density; unit columns, haematoxylin first. The amounts are for a section
of ordinary thickness and were set by eye against stained sections.
"""

from enum import IntEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.primitives import FloatArray

Stain = Literal["HE", "PAS"]


class Material(IntEnum):
    """Material of a pixel; the values of a structure map."""

    GLASS = 0
    INTERSTITIUM = 1
    TUBULE_MEMBRANE = 2
    PROXIMAL = 3
    BRUSH_BORDER = 4
    DISTAL = 5
    TUBULE_LUMEN = 6
    MUSCLE = 7
    VESSEL_LUMEN = 8
    BLOOD = 9
    CAPSULE = 10
    SPACE = 11
    TUFT_CELL = 12
    LOOP_WALL = 13
    LOOP_LUMEN = 14
    MESANGIUM = 15
    SCLEROSIS = 16
    HYALINE = 17
    CRESCENT = 18
    NUCLEUS = 19
    FIBROSIS = 20
    ATROPHIC = 21
    CAST = 22
    INTIMA = 23


# Columns: haematoxylin, eosin | haematoxylin, periodic acid-Schiff.
AMOUNTS: dict[Material, tuple[float, float, float, float]] = {
    Material.GLASS: (0.0, 0.0, 0.0, 0.0),
    Material.INTERSTITIUM: (0.08, 0.26, 0.08, 0.22),
    Material.TUBULE_MEMBRANE: (0.12, 0.5, 0.1, 1.05),
    Material.PROXIMAL: (0.13, 0.85, 0.17, 0.4),
    Material.BRUSH_BORDER: (0.09, 0.66, 0.08, 0.8),
    Material.DISTAL: (0.16, 0.5, 0.18, 0.2),
    Material.TUBULE_LUMEN: (0.01, 0.04, 0.01, 0.04),
    Material.MUSCLE: (0.14, 0.7, 0.12, 0.38),
    Material.VESSEL_LUMEN: (0.0, 0.02, 0.0, 0.02),
    Material.BLOOD: (0.05, 1.6, 0.12, 0.5),
    Material.CAPSULE: (0.14, 0.7, 0.1, 1.25),
    Material.SPACE: (0.0, 0.015, 0.0, 0.015),
    Material.TUFT_CELL: (0.20, 0.40, 0.19, 0.24),
    Material.LOOP_WALL: (0.17, 0.56, 0.10, 0.95),
    Material.LOOP_LUMEN: (0.01, 0.06, 0.01, 0.05),
    Material.MESANGIUM: (0.17, 0.58, 0.13, 0.95),
    Material.SCLEROSIS: (0.10, 0.95, 0.08, 1.35),
    Material.HYALINE: (0.06, 1.25, 0.06, 1.80),
    Material.CRESCENT: (0.24, 0.46, 0.22, 0.26),
    Material.NUCLEUS: (1.55, 0.30, 1.45, 0.18),
    Material.FIBROSIS: (0.09, 0.42, 0.10, 0.34),
    Material.ATROPHIC: (0.22, 0.50, 0.20, 0.24),
    Material.CAST: (0.04, 1.10, 0.05, 1.25),
    Material.INTIMA: (0.08, 0.34, 0.08, 0.26),
}


def material_table(stain: Stain) -> FloatArray:
    """Return the optical density of every material along both stain vectors, shape (24, 2)."""
    if stain not in {"HE", "PAS"}:
        raise ValueError(f"stain must be HE or PAS, got {stain!r}")
    columns = slice(0, 2) if stain == "HE" else slice(2, 4)
    return np.array([AMOUNTS[material][columns] for material in Material], dtype=np.float32)


StainMatrix = npt.NDArray[np.float64]
"""Shape (3, 2): unit columns, haematoxylin and the second stain; rows red, green, blue."""

# Haematoxylin and eosin: Ruifrok & Johnston (2001) and Macenko's reference slide (2009). PAS:
# "H PAS" of ImageJ's colour deconvolution, and a duller one measured on our sections.
BLUES = np.array([[0.650, 0.704, 0.286], [0.563, 0.720, 0.406], [0.644, 0.717, 0.267]])
EOSINS = np.array([[0.072, 0.990, 0.105], [0.216, 0.801, 0.558]])
SCHIFFS = np.array([[0.175, 0.972, 0.155], [0.300, 0.860, 0.410]])
JITTER = 0.035


def draw_stain_matrix(stain: Stain, rng: np.random.Generator) -> StainMatrix:
    """Draw the stain matrix of one slide, between the published vectors.

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


def recompose(
    concentrations: npt.NDArray[np.floating],
    stain_matrix: npt.NDArray[np.floating],
    *,
    white: npt.ArrayLike = 255.0,
) -> npt.NDArray[np.float32]:
    """Return the light behind the section, without blur, noise and rounding.

    Parameters
    ----------
    concentrations : ndarray of float, shape (2, H, W)
    stain_matrix : ndarray of float, shape (3, 2)
        Of this slide, or of another laboratory.
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
