"""Painting the tissue between the glomeruli: compiled, block by block."""

import math

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.canvas import Canvas, Ink, Paint, cover, lay, put
from glomerulab.phantom.sites import MAX_GATHERED, SiteGrid, gather, two_nearest
from glomerulab.phantom.texture import FloatArray, noise_at
from glomerulab.runtime.jit import compiled

__all__ = ["distance_to_core", "paint_cortex"]

# Codes of materials and of sites, as the compiler wants them.
INTERSTITIUM, TUBULE_MEMBRANE, PROXIMAL_CELL, BRUSH_BORDER, DISTAL_CELL = 1, 2, 3, 4, 5
TUBULE_LUMEN, MUSCLE, VESSEL_LUMEN, BLOOD = 6, 7, 8, 9
PROXIMAL, DISTAL, ARTERIOLE, CAPILLARY = 0, 1, 2, 3

BLOCK_PX, BLOCK_UM = 16, 16.0
"""Side of a block at most: few sites matter within it."""
WARP_UM = 1.5
WARP_REACH_UM = 6.0
"""Beyond four standard deviations of the warp in both directions."""


@compiled
def distance_to_core(cores: FloatArray, bank: FloatArray, x: float, y: float) -> float:
    """Return how far outside the tissue a place is, negative inside; cores are thick segments."""
    nearest = 1e9
    for item in range(cores.shape[0]):
        x0, y0, x1, y1, half_width = cores[item]
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
        along = min(max(along, 0.0), 1.0)
        away_x, away_y = x - x0 - along * dx, y - y0 - along * dy
        nearest = min(nearest, math.sqrt(away_x * away_x + away_y * away_y) - half_width)
    if -50.0 < nearest < 50.0:
        nearest += 9.0 * noise_at(bank, x * 0.011, y * 0.011)
        nearest += 2.5 * noise_at(bank, x * 0.08, y * 0.08) + noise_at(bank, x * 0.4, y * 0.4)
    return nearest


@compiled
def paint_cortex(
    canvas: Canvas, cores: FloatArray, grid: SiteGrid, ink: Ink, holes: FloatArray
) -> None:
    """Paint interstitium, tubules and vessels on a blank canvas, in place.

    `holes`, shape (n, 3), are discs (x, y, radius in µm) that something else will cover.
    """
    height, width = canvas.structure.shape
    found = np.empty(MAX_GATHERED, np.int32)
    block = max(min(BLOCK_PX, int(BLOCK_UM / canvas.mpp)), 1)
    half = 0.5 * block * canvas.mpp
    reach = 1.5 * half
    for upper in range(0, height, block):
        y = canvas.upper_um + upper * canvas.mpp + half
        for left in range(0, width, block):
            x = canvas.left_um + left * canvas.mpp + half
            outside = distance_to_core(cores, ink.bank, x, y)
            if outside > reach + 50.0 or _is_covered(holes, x, y, reach):
                continue
            n = gather(grid, x, y, reach + WARP_REACH_UM, found)
            deep = outside < -reach - 50.0
            for row in range(upper, min(upper + block, height)):
                for column in range(left, min(left + block, width)):
                    _paint_pixel(canvas, (row, column), (cores, deep), (grid.sites, found, n), ink)


@compiled
def _is_covered(holes: FloatArray, x: float, y: float, reach: float) -> bool:
    """Tell whether a disc lies wholly in one hole."""
    for item in range(holes.shape[0]):
        room = holes[item, 2] - reach
        dx, dy = x - holes[item, 0], y - holes[item, 1]
        if room > 0.0 and dx * dx + dy * dy < room * room:
            return True
    return False


@compiled
def _paint_pixel(
    canvas: Canvas,
    pixel: tuple[int, int],
    tissue: tuple[FloatArray, bool],
    near: tuple[FloatArray, npt.NDArray[np.int32], int],
    ink: Ink,
) -> None:
    row, column = pixel
    x = canvas.left_um + (column + 0.5) * canvas.mpp
    y = canvas.upper_um + (row + 0.5) * canvas.mpp
    inside = 1.0
    if not tissue[1]:
        inside = cover(distance_to_core(tissue[0], ink.bank, x, y), canvas.mpp)
        if inside <= 0.0:
            return
    warp_x = x + WARP_UM * noise_at(ink.bank, x * 0.07, y * 0.07)
    warp_y = y + WARP_UM * noise_at(ink.bank, x * 0.07 + 37.0, y * 0.07)
    sites, among, n = near
    nearest, first, second = two_nearest(sites, among, n, warp_x, warp_y)
    depth = -max(first, 0.5 * (first - second) + 0.7) if nearest >= 0 else -1e9
    now = (0.0, 0.0, INTERSTITIUM)
    if depth < 0.5 * canvas.mpp + 0.5:
        # Fibres: noise drawn out along the walls of the nearest tubule would cost more.
        fibres = noise_at(ink.bank, x * 0.10, y * 0.22) + 0.7 * noise_at(ink.bank, x * 0.5, y * 0.5)
        now = lay(now, ink, INTERSTITIUM, max(1.0 + 0.40 * fibres, 0.1), 1.0)
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
