"""How much of each stain the parts of a kidney take up, and the codes of those parts.

Amounts are concentrations in natural-logarithm optical density for a section of ordinary
thickness; they were set by eye against stained sections.
"""

from enum import IntEnum
from typing import Literal

import numpy as np

from glomerulab.phantom.texture import FloatArray

__all__ = ["Material", "Stain", "material_table"]

Stain = Literal["HE", "PAS"]


class Material(IntEnum):
    """What a pixel shows; the values of a structure map."""

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
}


def material_table(stain: Stain) -> FloatArray:
    """Return the uptake of every material, float32, shape (n_materials, 2).

    Parameters
    ----------
    stain : {"HE", "PAS"}
        The second column is eosin or periodic acid-Schiff.

    Returns
    -------
    ndarray of float32, shape (20, 2)
        Natural-logarithm optical density along the unit stain vectors.

    Raises
    ------
    ValueError
        If the stain is another.
    """
    if stain not in {"HE", "PAS"}:
        raise ValueError(f"stain must be HE or PAS, got {stain!r}")
    columns = slice(0, 2) if stain == "HE" else slice(2, 4)
    return np.array([AMOUNTS[material][columns] for material in Material], dtype=np.float32)
