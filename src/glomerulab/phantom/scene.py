"""A scene: glomeruli in their tissue, and its painting at any place and resolution.

Concentrations are functions of the place in µm, so that tiles rendered one by one fit together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.anatomy import Glomerulus
from glomerulab.phantom.compiled import compiled
from glomerulab.phantom.cortex import Cortex
from glomerulab.phantom.materials import material_table
from glomerulab.phantom.nuclei import paint_nuclei
from glomerulab.phantom.paint_cortex import distance_to_core, paint_cortex
from glomerulab.phantom.paint_glomerulus import paint_glomerulus
from glomerulab.phantom.section import Section
from glomerulab.phantom.texture import FloatArray, noise_bank

__all__ = ["Painting", "Scene", "paint"]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Everything there is to paint."""

    glomeruli: tuple[Glomerulus, ...]
    cortex: Cortex
    cores: FloatArray
    """Tissue as thick segments (x0, y0, x1, y1, half width), shape (n, 5), µm."""


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """One view of a scene."""

    concentrations: FloatArray
    """Shape (2, H, W): haematoxylin and the second stain, natural-logarithm optical density."""
    structure: npt.NDArray[np.uint8]
    """`Material` of every pixel, shape (H, W)."""
    lesion_bits: npt.NDArray[np.uint8]
    """1 mesangial, 2 sclerosis, 4 crescent; shape (H, W)."""


def paint(
    scene: Scene,
    section: Section,
    *,
    left_um: float,
    upper_um: float,
    shape: tuple[int, int],
    mpp: float,
) -> Painting:
    """Paint a view of a scene.

    Parameters
    ----------
    scene : Scene
    section : Section
    left_um, upper_um : float
        Place of the upper left corner of the view.
    shape : tuple of int
        Height and width in pixels.
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    Painting
    """
    uptake, bank = material_table(section.stain), noise_bank()
    amounts = np.zeros((2, *shape), np.float32)
    structure, bits = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    paint_cortex(
        amounts, structure, scene.cores, scene.cortex.sites, uptake, bank, left_um, upper_um, mpp
    )
    right, lower = left_um + shape[1] * mpp, upper_um + shape[0] * mpp
    nuclei = [scene.cortex.nuclei]
    for one in scene.glomeruli:
        if (
            one.x_um + one.reach_um < left_um
            or one.x_um - one.reach_um > right
            or one.y_um + one.reach_um < upper_um
            or one.y_um - one.reach_um > lower
        ):
            continue
        diseased = 1.0 if one.lesions.mspgn > 0 else 0.0
        numbers = (one.x_um, one.y_um, *one.segment, one.membrane_um, diseased)
        paint_glomerulus(
            amounts, structure, bits, (one.capsule_um, one.crescent_um), one.tuft, numbers,
            uptake, bank, (left_um, upper_um, mpp, one.reach_um),
        )  # fmt: skip
        nuclei.append(one.nuclei)
    table = _in_view(np.concatenate(nuclei), left_um, upper_um, right, lower)
    table = _on_tissue(table, scene.cores, bank)
    if section.nuclei_kept < 1.0:
        # The darkness of a nucleus was drawn at random, so its digits choose without a seed.
        table = table[(table[:, 6] * 997.0) % 1.0 < section.nuclei_kept]
    paint_nuclei(amounts, structure, table, uptake, bank, left_um, upper_um, mpp)
    amounts[0] *= np.float32(section.thickness * section.first_strength)
    amounts[1] *= np.float32(section.thickness * section.second_strength)
    np.clip(amounts, 0.0, None, out=amounts)
    return Painting(amounts, structure, bits)


@compiled
def _on_tissue(nuclei: FloatArray, cores: FloatArray, bank: FloatArray) -> FloatArray:
    """Leave out the nuclei that would lie on glass."""
    kept = np.zeros(nuclei.shape[0], np.bool_)
    for item in range(nuclei.shape[0]):
        kept[item] = distance_to_core(cores, bank, nuclei[item, 0], nuclei[item, 1]) < -1.5
    return nuclei[kept]


def _in_view(
    nuclei: FloatArray, left: float, upper: float, right: float, lower: float
) -> FloatArray:
    xs, ys, reach = nuclei[:, 0], nuclei[:, 1], 1.3 * nuclei[:, 2]
    seen = (xs + reach > left) & (xs - reach < right) & (ys + reach > upper) & (ys - reach < lower)
    return np.ascontiguousarray(nuclei[seen])
