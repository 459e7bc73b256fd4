"""Painting the tissue between the glomeruli: compiled, one pass over all pixels."""

import math

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.compiled import compiled
from glomerulab.phantom.sites import SiteGrid, two_nearest
from glomerulab.phantom.texture import FloatArray, noise_at

__all__ = ["distance_to_core", "paint_cortex"]

# Material and site codes, as the compiler wants them.
GLASS, INTERSTITIUM, TUBULE_MEMBRANE, PROXIMAL_CELL, BRUSH_BORDER, DISTAL_CELL = 0, 1, 2, 3, 4, 5
TUBULE_LUMEN, MUSCLE, VESSEL_LUMEN, BLOOD = 6, 7, 8, 9
PROXIMAL, DISTAL, ARTERIOLE = 0, 1, 2


@compiled
def _cover(distance: float, mpp: float) -> float:
    """Share of a pixel that lies inside an edge (distance negative inside), 0 to 1."""
    return min(max(0.5 - distance / mpp, 0.0), 1.0)


@compiled
def _mix(
    now: tuple[float, float, int], uptake: FloatArray, material: int, gain: float, cover: float
) -> tuple[float, float, int]:
    """Lay a material over what is there."""
    if cover <= 0.0:
        return now
    first = now[0] + (uptake[material, 0] * gain - now[0]) * cover
    second = now[1] + (uptake[material, 1] * gain - now[1]) * cover
    return first, second, material if cover > 0.5 else now[2]


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
    if -40.0 < nearest < 40.0:
        nearest += 7.0 * noise_at(bank, x * 0.012, y * 0.012)
        nearest += 2.0 * noise_at(bank, x * 0.09, y * 0.09) + noise_at(bank, x * 0.4, y * 0.4)
    return nearest


@compiled
def _tubule(
    site: FloatArray,
    first: float,
    second: float,
    uptake: FloatArray,
    bank: FloatArray,
    place: tuple[float, float, float],
    now: tuple[float, float, int],
) -> tuple[float, float, int]:
    """Lay a tubule or vessel over the interstitium."""
    x, y, mpp = place
    depth = -max(first, 0.5 * (first - second) + 0.8)
    if depth < -mpp:
        return now
    kind, height, free = int(site[6]), site[7], site[8]
    fine = noise_at(bank, x * 0.85, y * 0.85)
    coarse = noise_at(bank, x * 0.16, y * 0.16)
    if kind == 3:
        now = _mix(now, uptake, INTERSTITIUM, 1.5, _cover(-depth, mpp))
        return _mix(
            now, uptake, BLOOD if free < 0.35 else VESSEL_LUMEN, 1.0, _cover(0.8 - depth, mpp)
        )
    if kind == 2:
        now = _mix(now, uptake, MUSCLE, 1.0 + 0.15 * fine + 0.1 * coarse, _cover(-depth, mpp))
        now = _mix(now, uptake, TUBULE_MEMBRANE, 0.9, _cover(abs(height - depth) - 0.5, mpp))
        now = _mix(now, uptake, VESSEL_LUMEN, 1.0, _cover(height - depth + 0.5, mpp))
        return now
    now = _mix(now, uptake, TUBULE_MEMBRANE, 1.0, _cover(-depth, mpp))
    cell = PROXIMAL_CELL if kind == PROXIMAL else DISTAL_CELL
    gain = 0.88 + 0.24 * free + 0.13 * fine + 0.10 * coarse
    now = _mix(now, uptake, cell, gain, _cover(0.9 - depth, mpp))
    if kind == PROXIMAL:
        edge = height + 2.0 * noise_at(bank, x * 0.2, y * 0.2) + 1.1 * fine
        now = _mix(
            now, uptake, BRUSH_BORDER, 1.0 + 0.2 * fine, _cover(edge - 2.2 - depth, 2.0) * 0.8
        )
    else:
        edge = height + 0.9 * noise_at(bank, x * 0.2, y * 0.2) + 0.4 * fine
    return _mix(now, uptake, TUBULE_LUMEN, 1.0, _cover(edge - depth, 1.2 * mpp))


@compiled
def paint_cortex(
    amounts: FloatArray,
    structure: npt.NDArray[np.uint8],
    cores: FloatArray,
    grid: SiteGrid,
    uptake: FloatArray,
    bank: FloatArray,
    left: float,
    upper: float,
    mpp: float,
) -> None:
    """Paint glass, interstitium, tubules and vessels into empty maps, in place."""
    height, width = structure.shape
    for row in range(height):
        for column in range(width):
            x, y = left + (column + 0.5) * mpp, upper + (row + 0.5) * mpp
            inside = _cover(distance_to_core(cores, bank, x, y), mpp)
            if inside <= 0.0:
                continue
            warp_x = x + 1.6 * noise_at(bank, x * 0.07, y * 0.07)
            warp_y = y + 1.6 * noise_at(bank, x * 0.07 + 37.0, y * 0.07)
            fibres = noise_at(bank, x * 0.11, y * 0.11) + 0.6 * noise_at(bank, x * 0.5, y * 0.5)
            gain = max(1.0 + 0.35 * fibres, 0.15)
            now = (uptake[INTERSTITIUM, 0] * gain, uptake[INTERSTITIUM, 1] * gain, INTERSTITIUM)
            nearest, first, second = two_nearest(grid, warp_x, warp_y)
            if nearest >= 0:
                now = _tubule(grid.sites[nearest], first, second, uptake, bank, (x, y, mpp), now)
            amounts[0, row, column] = now[0] * inside
            amounts[1, row, column] = now[1] * inside
            if inside > 0.5:
                structure[row, column] = now[2]
