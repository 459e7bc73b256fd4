"""A scene: glomeruli in their tissue, and its painting at any place and resolution.

Concentrations are functions of the place in µm, so that tiles rendered one by one fit together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.anatomy import Glomerulus
from glomerulab.phantom.canvas import Canvas, Ink
from glomerulab.phantom.cortex import Cortex
from glomerulab.phantom.materials import material_table
from glomerulab.phantom.nuclei import paint_nuclei
from glomerulab.phantom.paint_cortex import distance_to_core, paint_cortex
from glomerulab.phantom.paint_glomerulus import paint_glomerulus
from glomerulab.phantom.section import Section
from glomerulab.phantom.texture import FloatArray, noise_at, noise_bank
from glomerulab.runtime.jit import compiled

__all__ = ["Painting", "Scene", "paint"]

HOLE_INSET_UM = 5.0
"""The tissue under a glomerulus is not painted, but for a rim."""


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
    canvas = Canvas(
        np.zeros((2, *shape), np.float32),
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.uint8),
        left_um,
        upper_um,
        mpp,
    )
    ink = Ink(material_table(section.stain), noise_bank())
    right, lower = left_um + shape[1] * mpp, upper_um + shape[0] * mpp
    seen = [one for one in scene.glomeruli if _touches(one, left_um, upper_um, right, lower)]
    holes = [(one.x_um, one.y_um, float(one.capsule_um.min()) - HOLE_INSET_UM) for one in seen]
    holes_table = np.array(holes, np.float32).reshape(-1, 3)
    paint_cortex(canvas, scene.cores, scene.cortex.sites, ink, holes_table)
    for one in seen:
        paint_glomerulus(canvas, one.shape(), ink)
    nuclei = np.concatenate([scene.cortex.nuclei, *(one.nuclei for one in seen)])
    nuclei = _in_view(nuclei, left_um, upper_um, right, lower)
    nuclei = _on_tissue(nuclei, scene.cores, ink.bank)
    if section.nuclei_kept < 1.0:
        # The darkness of a nucleus was drawn at random, so its digits can choose without a seed.
        nuclei = nuclei[(nuclei[:, 6] * 997.0) % 1.0 < section.nuclei_kept]
    paint_nuclei(canvas, nuclei, ink)
    first = section.thickness * section.first_strength
    _cut(canvas, ink.bank, first, section.thickness * section.second_strength)
    return Painting(canvas.amounts, canvas.structure, canvas.lesion_bits)


def _touches(one: Glomerulus, left: float, upper: float, right: float, lower: float) -> bool:
    reach = one.reach_um
    beside = one.x_um + reach < left or one.x_um - reach > right
    return not (beside or one.y_um + reach < upper or one.y_um - reach > lower)


@compiled
def _cut(canvas: Canvas, bank: FloatArray, first: float, second: float) -> None:
    """Scale both stains by the thickness of the section, which no knife keeps quite even."""
    height, width = canvas.structure.shape
    for row in range(height):
        y = canvas.upper_um + row * canvas.mpp
        for column in range(width):
            x = canvas.left_um + column * canvas.mpp
            here = 1.0 + 0.05 * noise_at(bank, x * 0.013, y * 0.013)
            canvas.amounts[0, row, column] = max(canvas.amounts[0, row, column], 0.0) * first * here
            canvas.amounts[1, row, column] = (
                max(canvas.amounts[1, row, column], 0.0) * second * here
            )


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
