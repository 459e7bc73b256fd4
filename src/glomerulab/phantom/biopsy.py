"""The layout of a biopsy core: glomeruli of many forms, arteries, scars, and perhaps medulla."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from shapely.geometry import Polygon

from glomerulab.errors import ConfigError
from glomerulab.geometry import Point
from glomerulab.phantom.arteries import Artery, draw_artery
from glomerulab.phantom.cortex import distance_to_core, draw_cortex
from glomerulab.phantom.glomerulus import (
    Glomerulus,
    Lesions,
    draw_form,
    draw_glomerulus,
    draw_lesions,
    draw_sclerosed,
)
from glomerulab.phantom.primitives import FloatArray, noise_bank
from glomerulab.phantom.scene import Scene
from glomerulab.phantom.section import Section
from glomerulab.phantom.zones import draw_zones

HALF_CORE_UM = 340.0
"""Half the width of a core; grows with the patient's glomeruli."""
GLASS_UM = 130.0
"""Empty glass around the tissue."""
LENGTH_PER_GLOMERULUS_UM = 190.0
MIN_LENGTH_UM = 300.0
REFERENCE_RADIUS_UM = 85.0
GAP_UM = 10.0
"""Least tissue between glomeruli, arteries and the edge, where they do not touch."""
N_TRIES = 100

MEDULLA_SHARE = 0.35
"""Share of the cores that reach the medulla."""
TOUCHING_SHARE, CUT_SHARE, GRAZED_SHARE = 0.2, 0.12, 0.12
"""Shares of the glomeruli: touching the one before, cut by the core's edge, and additional small
ones that the section only grazes."""
SCARRING = ((0.0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 1.0))
SCARRING_ODDS = (0.4, 0.25, 0.2, 0.15)


def draw_scarring(rng: np.random.Generator) -> float:
    """Draw the share of a patient's cortex that is scarred; little is more frequent than much."""
    low, high = SCARRING[int(rng.choice(len(SCARRING), p=SCARRING_ODDS))]
    return float(rng.uniform(low, high))


@dataclass(frozen=True, slots=True)
class _Core:
    """The tissue and what already lies in it."""

    segments: FloatArray
    border_um: float
    side: float
    box_um: tuple[float, float, float, float]
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    """Discs (x, y, radius)."""

    def place(
        self, radius: float, rng: np.random.Generator, *, at_edge: bool = False
    ) -> Point | None:
        """Return a free place in the cortex for a disc, inside the core or across its edge."""
        left, upper, right, lower = self.box_um
        for x, y in zip(rng.uniform(left, right, 400), rng.uniform(upper, lower, 400), strict=True):
            outside = distance_to_core(self.segments, noise_bank(), x, y)
            if at_edge and not -0.7 * radius < outside < -0.15 * radius:
                continue
            if not at_edge and outside > -radius - GAP_UM:
                continue
            in_cortex = self.side * (x - self.border_um) < -radius - 50.0 if self.side else True
            if in_cortex and self.is_free(x, y, radius):
                return float(x), float(y)
        return None

    def is_free(self, x: float, y: float, radius: float, *, gap: float = GAP_UM) -> bool:
        """Return whether a disc keeps its distance from all that lies there."""
        return all(math.hypot(x - a, y - b) > radius + r + gap for a, b, r in self.taken)


def biopsy_scene(
    kinds: Sequence[str], section: Section, rng: np.random.Generator, *, scarred: float = 0.0
) -> tuple[Scene, tuple[float, float]]:
    """Lay out a biopsy core.

    Parameters
    ----------
    kinds : sequence of str
        Of `glomerulab.phantom.glomerulus.KINDS`; these glomeruli come first in the scene, then
        grazed and globally sclerosed ones, whose lesions cannot be called.
    scarred : float, default 0.0
        Share of the cortex with interstitial fibrosis and atrophied tubules, 0 to 1. More of the
        glomeruli are globally sclerosed where it is high, and arteries are thicker.

    Returns
    -------
    Scene
    tuple of float
        Width and height of the slide in µm.

    Raises
    ------
    ConfigError
        If the glomeruli do not fit.
    """
    glomeruli = _labelled(kinds, section, rng)
    further = _further(len(kinds), section, rng, scarred)
    arteries = [draw_artery(rng, scarred=scarred) for _ in range(1 + rng.binomial(len(kinds), 0.3))]
    scale = section.radius_um / REFERENCE_RADIUS_UM
    crowd = len(kinds) + 0.2 * len(further) + 0.2 * len(arteries)
    length = max(crowd * LENGTH_PER_GLOMERULUS_UM * scale, MIN_LENGTH_UM)
    side = float(rng.choice([-1.0, 1.0])) if rng.random() < MEDULLA_SHARE else 0.0
    medulla = length * float(rng.uniform(0.2, 0.45)) if side else 0.0
    half = HALF_CORE_UM * scale
    width_um = length + medulla + 2 * half + 2 * GLASS_UM
    height_um = 2 * half + 2 * GLASS_UM + 60.0
    start, middle = GLASS_UM + half, height_um / 2
    segments = _core(start, length + medulla, middle, half, rng)
    first, last = start - 0.35 * half, start + length + medulla + 0.35 * half
    border = first + medulla if side < 0 else last - medulla
    cortex_box = (
        border if side < 0 else first,
        middle - half,
        border if side > 0 else last,
        middle + half,
    )
    for _ in range(N_TRIES):
        core = _Core(segments, border, side, cortex_box)
        placed = _placed(glomeruli, further, arteries, core, rng)
        if placed is not None:
            break
    else:
        raise ConfigError(
            f"{len(kinds)} glomeruli do not fit into one core; ask for fewer per slide"
        )
    all_glomeruli, all_arteries = placed
    around = [(one.x_um, one.y_um) for one in all_glomeruli if one.form.sclerosed]
    zones = draw_zones(cortex_box, scarred, rng, border_um=border, side=side, around=around)
    cortex = draw_cortex(
        (0.0, 0.0, width_um, height_um),
        _holes(all_glomeruli, all_arteries),
        rng,
        poles=[one.pole for one in all_glomeruli if one.pole is not None],
        tubule_scale=section.tubule_scale,
        arterioles=0.008,
        open_lumen=float(rng.uniform(0.0, 1.0)),
        zones=zones,
    )
    scene = Scene(tuple(all_glomeruli), cortex, segments, tuple(all_arteries), zones)
    return scene, (width_um, height_um)


def _labelled(kinds: Sequence[str], section: Section, rng: np.random.Generator) -> list[Glomerulus]:
    """Draw the glomeruli whose lesions are the requested ones, at the origin."""
    glomeruli = []
    for kind in kinds:
        lesions = draw_lesions(kind, rng)
        form = draw_form(lesions, rng)
        # A section meets a sphere at any height; near its pole, lesions cannot be called.
        height = float(rng.uniform(0.0, 0.68))
        radius = section.radius_um * math.sqrt(1.0 - height**2) * float(rng.uniform(0.92, 1.12))
        glomeruli.append(draw_glomerulus(lesions, rng, radius_um=radius, form=form))
    return glomeruli


def _further(
    n: int, section: Section, rng: np.random.Generator, scarred: float
) -> list[Glomerulus]:
    """Draw grazed and globally sclerosed glomeruli, at the origin."""
    grazed = [
        draw_glomerulus(
            Lesions(),
            rng,
            radius_um=section.radius_um * float(rng.uniform(0.28, 0.5)),
            form=draw_form(Lesions(), rng),
        )
        for _ in range(rng.binomial(n, GRAZED_SHARE))
    ]
    sclerosed = [
        draw_sclerosed(rng, radius_um=section.radius_um * float(rng.uniform(0.45, 0.8)))
        for _ in range(rng.binomial(n, 0.05 + 0.55 * scarred))
    ]
    return grazed + sclerosed


def _placed(
    glomeruli: Sequence[Glomerulus],
    further: Sequence[Glomerulus],
    arteries: Sequence[Artery],
    core: _Core,
    rng: np.random.Generator,
) -> tuple[list[Glomerulus], list[Artery]] | None:
    """Place everything, or return None if it does not fit."""
    placed: list[Glomerulus] = []
    for number, one in enumerate((*glomeruli, *further)):
        radius = float(one.capsule_um.max())
        diffuse = one.lesions.fsg == 0 and one.lesions.cgn == 0
        is_cut = diffuse and not one.form.sclerosed and bool(rng.random() < CUT_SHARE)
        moved = None
        if number and not is_cut and rng.random() < TOUCHING_SHARE:
            moved = _touching(one, placed[-1], core, rng)
        if moved is None:
            place = core.place(radius, rng, at_edge=is_cut)
            if place is None:
                return None
            moved = one.moved(place, is_cut=is_cut)
        core.taken.append((moved.x_um, moved.y_um, radius))
        placed.append(moved)
    vessels = []
    for artery in arteries:
        place = core.place(artery.reach_um, rng)
        if place is None:
            return None
        core.taken.append((*place, artery.reach_um))
        vessels.append(artery.moved(place))
    return placed, vessels


def _touching(
    one: Glomerulus, other: Glomerulus, core: _Core, rng: np.random.Generator
) -> Glomerulus | None:
    """Return a glomerulus moved against another, capsule on capsule, or None without room."""
    radius, other_radius = float(one.capsule_um.max()), float(other.capsule_um.max())
    neighbour = Polygon(other.outline())
    for turn in rng.uniform(0, 2 * math.pi, 12):
        distance = radius + other_radius
        for _ in range(4):
            x = other.x_um + distance * math.cos(turn)
            y = other.y_um + distance * math.sin(turn)
            gap = neighbour.distance(Polygon(one.moved((x, y)).outline()))
            distance -= gap
        outside = distance_to_core(core.segments, noise_bank(), x, y)
        in_cortex = core.side * (x - core.border_um) < -radius - 50.0 if core.side else True
        others = core.taken[:-1]
        is_free = all(math.hypot(x - a, y - b) > radius + r + GAP_UM for a, b, r in others)
        if in_cortex and is_free and outside < -radius - GAP_UM:
            return one.moved((x, y))
    return None


def _holes(glomeruli: Sequence[Glomerulus], arteries: Sequence[Artery]) -> npt.NDArray[np.float64]:
    """Return the outlines that tubules keep clear of."""
    n = len(glomeruli[0].capsule_um)
    turns = np.arange(n) * (2 * math.pi / n)
    holes = [[one.x_um, one.y_um, *one.capsule_um] for one in glomeruli]
    for artery in arteries:
        shape = artery.shape
        away = turns - math.atan2(shape.turn[1], shape.turn[0])
        along = np.cos(away) / shape.elongation
        radii = (shape.radius_um + 4.0) / np.hypot(along, np.sin(away))
        holes.append([shape.x_um, shape.y_um, *radii])
    return np.array(holes)


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
