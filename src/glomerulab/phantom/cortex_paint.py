"""The tissue around the glomeruli, painted block by block; lengths in µm of the scene."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.cortex import ARTERIOLE, ATROPHIED, CAPILLARY, PROXIMAL, distance_to_core
from glomerulab.phantom.primitives import (
    ARTERY_BIT,
    ATROPHIC_BIT,
    CAPILLARY_BIT,
    CORTEX_BIT,
    FIBROSIS_BIT,
    MAX_GATHERED,
    MEDULLA_BIT,
    TUBULE_BIT,
    Canvas,
    FloatArray,
    Ink,
    Paint,
    SiteGrid,
    cover,
    gather,
    lay,
    noise_at,
    put,
    two_nearest,
)
from glomerulab.phantom.zones import FADE_UM, Zones, medulla_depth, scar_depth
from glomerulab.runtime.jit import compiled

# Codes of `Material`; the compiler takes no enum.
INTERSTITIUM, TUBULE_MEMBRANE, PROXIMAL_CELL, BRUSH_BORDER, DISTAL_CELL = 1, 2, 3, 4, 5
TUBULE_LUMEN, MUSCLE, VESSEL_LUMEN, BLOOD = 6, 7, 8, 9
FIBROSIS, ATROPHIC_CELL, CAST = 20, 21, 22

BLOCK_PX, BLOCK_UM = 16, 16.0
"""Maximal side of a block, within which few sites matter."""
WARP_UM = 1.5
WARP_REACH_UM = 6.0
"""Beyond four standard deviations of the warp in both directions."""


class Ground(NamedTuple):
    """What the painter of the cortex sees."""

    cores: FloatArray
    grid: SiteGrid
    zones: Zones
    holes: FloatArray
    """Discs (x, y, radius in µm) that are painted over later, shape (n, 3)."""
    first_number: int
    """Of the sites in `Canvas.objects`."""


class Block(NamedTuple):
    """What holds for all pixels of a block."""

    found: npt.NDArray[np.int32]
    """The first `n` are the sites that matter."""
    n: int
    is_deep: bool
    """Whether it lies well within the tissue."""
    at_border: bool
    """Whether the border of a scar or of the medulla may cross it."""
    scar_um: float
    """Depth of its middle within a scar."""
    medulla_um: float
    """Depth of its middle within the medulla."""


@compiled
def paint_cortex(canvas: Canvas, ground: Ground, ink: Ink) -> None:
    """Paint interstitium, tubules and small vessels on a blank canvas, in place."""
    height, width = canvas.structure.shape
    found = np.empty(MAX_GATHERED, np.int32)
    side = max(min(BLOCK_PX, int(BLOCK_UM / canvas.mpp)), 1)
    half = 0.5 * side * canvas.mpp
    reach = 1.5 * half
    for upper in range(0, height, side):
        y = canvas.upper_um + upper * canvas.mpp + half
        for left in range(0, width, side):
            x = canvas.left_um + left * canvas.mpp + half
            outside = distance_to_core(ground.cores, ink.bank, x, y)
            if outside > reach + 50.0 or _is_covered(ground.holes, x, y, reach):
                continue
            n = gather(ground.grid, x, y, reach + WARP_REACH_UM, found)
            scar = scar_depth(ground.zones, ink.bank, x, y)
            medulla = medulla_depth(ground.zones, ink.bank, x, y)
            at_border = min(abs(scar), abs(medulla)) < FADE_UM + reach
            block = Block(found, n, outside < -reach - 50.0, at_border, scar, medulla)
            for row in range(upper, min(upper + side, height)):
                for column in range(left, min(left + side, width)):
                    _paint_pixel(canvas, (row, column), ground, block, ink)


@compiled
def _is_covered(holes: FloatArray, x: float, y: float, reach: float) -> bool:
    """Return whether a disc lies within one hole."""
    for item in range(holes.shape[0]):
        room = holes[item, 2] - reach
        dx, dy = x - holes[item, 0], y - holes[item, 1]
        if room > 0.0 and dx * dx + dy * dy < room * room:
            return True
    return False


@compiled
def _paint_pixel(
    canvas: Canvas, pixel: tuple[int, int], ground: Ground, block: Block, ink: Ink
) -> None:
    row, column = pixel
    x = canvas.left_um + (column + 0.5) * canvas.mpp
    y = canvas.upper_um + (row + 0.5) * canvas.mpp
    inside = 1.0
    if not block.is_deep:
        inside = cover(distance_to_core(ground.cores, ink.bank, x, y), canvas.mpp)
        if inside <= 0.0:
            return
    scar, in_medulla = _zone(ground.zones, block, ink.bank, (x, y))
    warp_x = x + WARP_UM * noise_at(ink.bank, x * 0.07, y * 0.07)
    warp_y = y + WARP_UM * noise_at(ink.bank, x * 0.07 + 37.0, y * 0.07)
    sites = ground.grid.sites
    nearest, first, second = two_nearest(sites, block.found, block.n, warp_x, warp_y)
    depth = -max(first, 0.5 * (first - second) + 0.7) if nearest >= 0 else -1e9
    now = (0.0, 0.0, INTERSTITIUM)
    if depth < 0.5 * canvas.mpp + 0.5:
        now = _between(now, scar, ink, (x, y))
    if depth > -canvas.mpp:
        star = 0.0
        site = sites[nearest]
        if site[6] == PROXIMAL and depth > 0.4 * site[7]:
            turn = math.atan2(warp_y - site[1], warp_x - site[0])
            arms = 3.0 + math.floor(4.0 * site[8])
            uneven = 1.2 + 0.8 * noise_at(ink.bank, x * 0.09 + 23.0, y * 0.09)
            star = (0.4 + 1.6 * site[8]) * uneven * math.cos(arms * turn + 9.0 * site[8])
        now = _tube(site, (depth, star), ink, (x, y, canvas.mpp), now)
    put(canvas, row, column, now, inside)
    if inside <= 0.5:
        canvas.structure[row, column] = 0
        return
    bits = MEDULLA_BIT if in_medulla else CORTEX_BIT
    if depth > 0.0:
        bits |= _site_bits(int(sites[nearest, 6]))
        canvas.objects[row, column] = ground.first_number + nearest
    elif scar > 0.0:
        bits |= FIBROSIS_BIT
    canvas.masks[row, column] = bits


@compiled
def _zone(
    zones: Zones, block: Block, bank: FloatArray, place: tuple[float, float]
) -> tuple[float, bool]:
    """Return the depth within a scar, and whether a place is medulla, which has no scars."""
    scar, medulla = block.scar_um, block.medulla_um
    if block.at_border:
        scar = scar_depth(zones, bank, place[0], place[1])
        medulla = medulla_depth(zones, bank, place[0], place[1])
    return (-1e9 if medulla > 0.0 else scar), medulla > 0.0


@compiled
def _between(now: Paint, scar: float, ink: Ink, place: tuple[float, float]) -> Paint:
    """Lay the interstitium, which is denser in scars."""
    x, y = place
    # Fibres; noise stretched along the walls of the nearest tubule would cost more.
    fibres = noise_at(ink.bank, x * 0.10, y * 0.22) + 0.7 * noise_at(ink.bank, x * 0.5, y * 0.5)
    now = lay(now, ink, INTERSTITIUM, max(1.0 + 0.40 * fibres, 0.1), 1.0)
    if scar > -4.0:
        strands = noise_at(ink.bank, x * 0.30 + y * 0.12, y * 0.30 - x * 0.12)
        gain = max(1.0 + 0.17 * fibres + 0.14 * strands, 0.3)
        now = lay(now, ink, FIBROSIS, gain, cover(-scar, 8.0))
    return now


@compiled
def _site_bits(kind: int) -> int:
    if kind == CAPILLARY:
        return CAPILLARY_BIT
    if kind == ARTERIOLE:
        return ARTERY_BIT
    return TUBULE_BIT | ATROPHIC_BIT if kind == ATROPHIED else TUBULE_BIT


@compiled
def _tube(
    site: FloatArray,
    within: tuple[float, float],
    ink: Ink,
    place: tuple[float, float, float],
    now: Paint,
) -> Paint:
    """Lay a tubule or vessel over the interstitium.

    `within`: µm inside its wall, and how far the brush border is indented there.
    """
    x, y, mpp = place
    depth, star = within
    kind, height, free = int(site[6]), site[7], site[8]
    fine = noise_at(ink.bank, x * 0.85, y * 0.85)
    if kind == CAPILLARY:
        now = lay(now, ink, INTERSTITIUM, 1.6, cover(-depth, mpp))
        inner = BLOOD if free < 0.3 else VESSEL_LUMEN
        return lay(now, ink, inner, 1.0 + 0.2 * fine, cover(0.9 - depth, mpp))
    coarse = noise_at(ink.bank, x * 0.16, y * 0.16)
    if kind == ARTERIOLE:
        layers = math.sin(depth * 1.9 + 2.0 * coarse)
        now = lay(now, ink, MUSCLE, 1.0 + 0.12 * fine + 0.16 * layers, cover(-depth, mpp))
        now = lay(now, ink, TUBULE_MEMBRANE, 0.9, cover(abs(height - depth) - 0.5, mpp))
        return lay(now, ink, VESSEL_LUMEN, 1.0, cover(height - depth + 0.5, mpp))
    if kind == ATROPHIED:
        return _atrophied(site, depth, ink, place, now)
    now = lay(now, ink, TUBULE_MEMBRANE, 1.0, cover(-depth, mpp))
    cell = PROXIMAL_CELL if kind == PROXIMAL else DISTAL_CELL
    grain = noise_at(ink.bank, x * 1.7 + 5.0, y * 1.7)
    gain = 0.80 + 0.36 * free + 0.16 * fine + 0.12 * coarse + 0.12 * grain
    now = lay(now, ink, cell, gain, cover(0.8 - depth, mpp))
    edge = height + 0.9 * noise_at(ink.bank, x * 0.2, y * 0.2) + 0.4 * fine
    if kind == PROXIMAL:
        edge += 1.0 * noise_at(ink.bank, x * 0.13 + 11.0, y * 0.13) + 0.7 * fine + star
        brush = cover(edge - 2.0 - depth, 2.2) * 0.85
        now = lay(now, ink, BRUSH_BORDER, 1.0 + 0.22 * fine, brush)
    return lay(now, ink, TUBULE_LUMEN, 1.0, cover(edge - depth, 1.3 * mpp))


@compiled
def _atrophied(
    site: FloatArray, depth: float, ink: Ink, place: tuple[float, float, float], now: Paint
) -> Paint:
    """Lay an atrophied tubule: a thick wrinkled membrane, low cells, and a lumen, cast or none."""
    x, y, mpp = place
    height, free = site[7], site[8]
    fine = noise_at(ink.bank, x * 0.85, y * 0.85)
    coarse = noise_at(ink.bank, x * 0.22 + 3.0, y * 0.22)
    membrane = 1.5 + 2.4 * ((free * 7.0) % 1.0) + 0.7 * coarse
    now = lay(now, ink, TUBULE_MEMBRANE, 0.95 + 0.12 * fine, cover(-depth, mpp))
    gain = 0.85 + 0.3 * free + 0.18 * fine
    now = lay(now, ink, ATROPHIC_CELL, gain, cover(membrane - depth, mpp))
    if free < 0.2:  # shrunken solid cords
        return now
    edge = membrane + (0.6 if free < 0.45 else 1.0) * 0.5 * height + 0.8 * coarse + 0.3 * fine
    inner = cover(edge - depth, 1.2 * mpp)
    if free < 0.45:  # thyroid-like: flat cells around a cast
        return lay(now, ink, CAST, 0.85 + 0.3 * ((free * 13.0) % 1.0) + 0.05 * coarse, inner)
    return lay(now, ink, TUBULE_LUMEN, 1.0, inner)
