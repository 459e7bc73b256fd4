"""A scene of glomeruli in their tissue, its layout as a biopsy core, and its painting.

Concentrations are functions of the place in µm, so that tiles rendered one by one fit together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.errors import ConfigError
from glomerulab.phantom.cortex import Cortex, distance_to_core, draw_cortex, paint_cortex
from glomerulab.phantom.glomerulus import (
    Glomerulus,
    draw_glomerulus,
    draw_lesions,
    paint_glomerulus,
)
from glomerulab.phantom.primitives import (
    Canvas,
    FloatArray,
    Ink,
    far_apart,
    noise_at,
    noise_bank,
    paint_nuclei,
)
from glomerulab.phantom.section import Section
from glomerulab.phantom.stains import material_table
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
    """Paint a view of a scene."""
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
        # The darkness of a nucleus is random, so its digits choose without another seed.
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


HALF_CORE_UM = 340.0
"""Half the width of a core; grows with the patient's glomeruli."""
GLASS_UM = 130.0
"""Empty glass around the tissue."""
LENGTH_PER_GLOMERULUS_UM = 190.0
MIN_LENGTH_UM = 300.0
REFERENCE_RADIUS_UM = 85.0
ROOM = 1.3
"""Space of a glomerulus, in mean radii."""
N_TRIES = 100


def biopsy_scene(
    kinds: Sequence[str], section: Section, rng: np.random.Generator
) -> tuple[Scene, tuple[float, float]]:
    """Lay out a biopsy core with its glomeruli.

    `kinds` are of `glomerulab.phantom.glomerulus.KINDS`. Returns the scene, and width and height
    of the slide in µm.
    """
    scale = section.radius_um / REFERENCE_RADIUS_UM
    length = max(len(kinds) * LENGTH_PER_GLOMERULUS_UM * scale, MIN_LENGTH_UM)
    half = HALF_CORE_UM * scale
    width_um = length + 2 * half + 2 * GLASS_UM
    height_um = 2 * half + 2 * GLASS_UM + 60.0
    start, middle = GLASS_UM + half, height_um / 2
    cores = _core(start, length, middle, half, rng)
    inset = ROOM * section.radius_um + 30.0
    area = (
        start - half / 2,
        middle - half + inset,
        start + length + half / 2,
        middle + half - inset,
    )
    places = _glomerulus_places(len(kinds), area, ROOM * section.radius_um, rng)
    glomeruli = tuple(
        draw_glomerulus(
            draw_lesions(kind, rng),
            rng,
            place_um=(float(x), float(y)),
            radius_um=section.radius_um * float(rng.uniform(0.9, 1.1)),
        )
        for kind, (x, y) in zip(kinds, places, strict=True)
    )
    holes = np.array([[one.x_um, one.y_um, one.capsule_um.mean()] for one in glomeruli])
    poles = [one.pole for one in glomeruli if one.pole is not None]
    cortex = draw_cortex(
        (0.0, 0.0, width_um, height_um), holes, rng, poles=poles, tubule_scale=section.tubule_scale
    )
    return Scene(glomeruli, cortex, cores), (width_um, height_um)


def _core(
    start: float, length: float, middle: float, half: float, rng: np.random.Generator
) -> FloatArray:
    """Return a biopsy core as thick segments that bend a little, broken off at both ends."""
    bends = rng.uniform(-25.0, 25.0, 5)
    xs = np.linspace(start, start + length, 5)
    spine = [
        [xs[n], middle + bends[n], xs[n + 1], middle + bends[n + 1], half * rng.uniform(0.94, 1.0)]
        for n in range(4)
    ]
    ends = [
        [xs[place], middle, xs[place] + shift, middle + rng.uniform(-0.5, 0.5) * half, 0.55 * half]
        for place, shift in ((0, -0.35 * half), (-1, 0.35 * half))
    ]
    return np.array(spine + ends, np.float32)


def _glomerulus_places(
    n: int,
    area: tuple[float, float, float, float],
    room: float,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Draw n places with room around each, shape (n, 2)."""
    left, upper, right, lower = area
    for _ in range(N_TRIES):
        xs, ys = rng.uniform(left, right, 400 * n), rng.uniform(upper, lower, 400 * n)
        kept = far_apart(xs, ys, np.full(xs.size, 0.95 * room), 2 * room)
        if kept.sum() >= n:
            return np.stack([xs[kept][:n], ys[kept][:n]], axis=1)
    raise ConfigError(f"{n} glomeruli do not fit into one core; ask for fewer per slide")
