"""A scene of glomeruli and arteries in their tissue, and its painting.

Concentrations are functions of the place in µm, so that tiles rendered one by one fit together.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.arteries import Artery, paint_artery
from glomerulab.phantom.cortex import Cortex, distance_to_core
from glomerulab.phantom.cortex_paint import Ground, paint_cortex
from glomerulab.phantom.glomerulus import Glomerulus
from glomerulab.phantom.glomerulus_paint import paint_glomerulus
from glomerulab.phantom.primitives import (
    Canvas,
    FloatArray,
    Ink,
    blank_canvas,
    noise_at,
    noise_bank,
    paint_nuclei,
)
from glomerulab.phantom.section import Section
from glomerulab.phantom.stains import material_table
from glomerulab.phantom.zones import NO_ZONES, Zones
from glomerulab.runtime.jit import compiled

HOLE_INSET_UM = 5.0
"""Width of the rim of tissue that is painted under a glomerulus."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Glomeruli, the tissue between them, and the extent of the tissue."""

    glomeruli: tuple[Glomerulus, ...]
    cortex: Cortex
    cores: FloatArray
    """Tissue as thick segments (x0, y0, x1, y1, half width), shape (n, 5), µm."""
    arteries: tuple[Artery, ...] = ()
    zones: Zones = NO_ZONES


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """One view of a scene."""

    concentrations: FloatArray
    """Shape (2, H, W): haematoxylin and the second stain, natural-logarithm optical density."""
    structure: npt.NDArray[np.uint8]
    """`Material` of every pixel, shape (H, W)."""
    lesion_bits: npt.NDArray[np.uint8]
    """1 mesangial, 2 sclerosis, 4 crescent; shape (H, W)."""
    masks: npt.NDArray[np.uint16]
    """Structures of every pixel, see `Canvas.masks`; shape (H, W)."""
    objects: npt.NDArray[np.int32]
    """Object of every pixel, see `Canvas.objects`; shape (H, W)."""


def paint(
    scene: Scene,
    section: Section,
    *,
    left_um: float,
    upper_um: float,
    shape: tuple[int, int],
    mpp: float,
) -> Painting:
    """Paint a view of a scene."""
    canvas = blank_canvas(shape, left_um=left_um, upper_um=upper_um, mpp=mpp)
    ink = Ink(material_table(section.stain), noise_bank())
    right, lower = left_um + shape[1] * mpp, upper_um + shape[0] * mpp
    seen = [
        (number, one)
        for number, one in enumerate(scene.glomeruli, start=1)
        if _touches((one.x_um, one.y_um, one.reach_um), left_um, upper_um, right, lower)
    ]
    holes = [(one.x_um, one.y_um, float(one.capsule_um.min()) - HOLE_INSET_UM) for _, one in seen]
    holes_table = np.array(holes, np.float32).reshape(-1, 3)
    first_site = 1 + len(scene.glomeruli) + len(scene.arteries)
    ground = Ground(scene.cores, scene.cortex.sites, scene.zones, holes_table, first_site)
    paint_cortex(canvas, ground, ink)
    for number, artery in enumerate(scene.arteries, start=1 + len(scene.glomeruli)):
        place = (artery.shape.x_um, artery.shape.y_um, artery.reach_um)
        if _touches(place, left_um, upper_um, right, lower):
            paint_artery(canvas, artery.shape, ink, scene.cores, number)
    for number, one in seen:
        paint_glomerulus(canvas, one.shape(), ink, scene.cores, number)
    nuclei = np.concatenate(
        [
            scene.cortex.nuclei,
            *(one.nuclei for one in scene.arteries),
            *(one.nuclei for _, one in seen),
        ]
    )
    nuclei = _in_view(nuclei, left_um, upper_um, right, lower)
    nuclei = _on_tissue(nuclei, scene.cores, ink.bank)
    if section.nuclei_kept < 1.0:
        # The darkness of a nucleus is random, so its digits choose without another seed.
        nuclei = nuclei[(nuclei[:, 6] * 997.0) % 1.0 < section.nuclei_kept]
    paint_nuclei(canvas, nuclei, ink)
    first = section.thickness * section.first_strength
    _cut(canvas, ink.bank, first, section.thickness * section.second_strength)
    return Painting(
        canvas.amounts, canvas.structure, canvas.lesion_bits, canvas.masks, canvas.objects
    )


def _touches(
    place: tuple[float, float, float], left: float, upper: float, right: float, lower: float
) -> bool:
    x, y, reach = place
    beside = x + reach < left or x - reach > right
    return not (beside or y + reach < upper or y - reach > lower)


@compiled
def _cut(canvas: Canvas, bank: FloatArray, first: float, second: float) -> None:
    """Scale both stains by the slightly uneven thickness of the section."""
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
    """Drop the nuclei that lie on glass."""
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
