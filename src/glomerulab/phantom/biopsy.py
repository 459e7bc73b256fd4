"""A biopsy core on glass: where its glomeruli lie, and the scene they make with their tissue."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glomerulab.errors import ConfigError
from glomerulab.phantom.anatomy import draw_glomerulus
from glomerulab.phantom.cortex import draw_cortex
from glomerulab.phantom.lesions import draw_lesions
from glomerulab.phantom.scene import Scene
from glomerulab.phantom.section import Section
from glomerulab.phantom.sites import far_apart
from glomerulab.phantom.texture import FloatArray

__all__ = ["biopsy_scene"]

HALF_CORE_UM = 340.0
"""Half the width of a core; grows with the patient's glomeruli."""
GLASS_UM = 130.0
"""Empty glass around the tissue."""
LENGTH_PER_GLOMERULUS_UM = 190.0
LEAST_LENGTH_UM = 300.0
ORDINARY_RADIUS_UM = 85.0
ROOM = 1.3
"""What a glomerulus needs, in its mean radii."""
N_TRIES = 100


def biopsy_scene(
    kinds: Sequence[str], section: Section, rng: np.random.Generator
) -> tuple[Scene, tuple[float, float]]:
    """Lay out a biopsy core with its glomeruli.

    Parameters
    ----------
    kinds : sequence of str
        The kind of each glomerulus, of `glomerulab.phantom.lesions.KINDS`.
    section : Section
    rng : Generator

    Returns
    -------
    scene : Scene
    size_um : tuple of float
        Width and height of the slide.
    """
    scale = section.radius_um / ORDINARY_RADIUS_UM
    length = max(len(kinds) * LENGTH_PER_GLOMERULUS_UM * scale, LEAST_LENGTH_UM)
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
    """Draw n places that keep their distance, shape (n, 2)."""
    left, upper, right, lower = area
    for _ in range(N_TRIES):
        xs, ys = rng.uniform(left, right, 400 * n), rng.uniform(upper, lower, 400 * n)
        kept = far_apart(xs, ys, np.full(xs.size, 0.95 * room), 2 * room)
        if kept.sum() >= n:
            return np.stack([xs[kept][:n], ys[kept][:n]], axis=1)
    raise ConfigError(f"could not place {n} glomeruli in one core; ask for fewer per slide")
