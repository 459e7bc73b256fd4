"""Painting one glomerulus over the tissue around it: compiled, one pass over its pixels."""

import math

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.compiled import compiled
from glomerulab.phantom.sites import SiteGrid, two_nearest
from glomerulab.phantom.texture import FloatArray, noise_at

__all__ = ["CGN_BIT", "FSG_BIT", "MSPGN_BIT", "paint_glomerulus"]

MSPGN_BIT, FSG_BIT, CGN_BIT = 1, 2, 4
"""Bits of a lesion map."""

# Material codes, as the compiler wants them.
BLOOD, CAPSULE, SPACE, TUFT_CELL, LOOP_WALL, LOOP_LUMEN, MESANGIUM = 9, 10, 11, 12, 13, 14, 15
SCLEROSIS, HYALINE, CRESCENT = 16, 17, 18


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
def _tuft(
    tuft: SiteGrid,
    uptake: FloatArray,
    bank: FloatArray,
    x: float,
    y: float,
    world: tuple[float, float, float],
) -> tuple[float, float, int]:
    """Return the amounts and material of the tuft, or of Bowman's space, at a place."""
    wx, wy, mpp = world
    now = (uptake[SPACE, 0], uptake[SPACE, 1], SPACE)
    nearest, first, second = two_nearest(tuft, x, y)
    if nearest < 0 or first > 4.0:
        return now
    kind, free = tuft.sites[nearest, 6], tuft.sites[nearest, 8]
    grain = noise_at(bank, wx * 0.9, wy * 0.9)
    now = _mix(now, uptake, TUFT_CELL, 1.0 + 0.18 * grain, _cover(first - 2.0, mpp))
    if kind == 1.0:
        matrix = first - 1.2 + 0.5 * noise_at(bank, wx * 0.3, wy * 0.3)
        return _mix(now, uptake, MESANGIUM, 1.0 + 0.15 * grain, _cover(matrix, mpp))
    # Half the way to the neighbour's ellipse is the common wall.
    edge = max(first, 0.5 * (first - second) + 0.9)
    collapse = 2.6 * max(free - 0.72, 0.0) / 0.28
    now = _mix(now, uptake, LOOP_WALL, 1.0 + 0.1 * grain, _cover(abs(edge + 0.2) - 0.55, mpp))
    lumen = edge + 0.75 + collapse
    now = _mix(now, uptake, LOOP_LUMEN, 1.0, _cover(lumen, mpp))
    if free < 0.16:
        cell = 1.0 + 0.25 * noise_at(bank, wx * 0.35, wy * 0.35)
        now = _mix(now, uptake, BLOOD, cell, _cover(lumen + 0.7, mpp) * 0.9)
    return now


@compiled
def paint_glomerulus(
    amounts: FloatArray,
    structure: npt.NDArray[np.uint8],
    lesion_bits: npt.NDArray[np.uint8],
    outlines: tuple[FloatArray, FloatArray],
    tuft: SiteGrid,
    numbers: tuple[float, float, float, float, float, float, float],
    uptake: FloatArray,
    bank: FloatArray,
    frame: tuple[float, float, float, float],
) -> None:
    """Paint a glomerulus into concentrations, structure and lesion maps, in place.

    `numbers`: centre x and y, segment x, y and radius, thickness of the capsule, 1 if the
    mesangium is diseased. `frame`: left and upper edge in µm, µm per pixel, reach in µm.
    """
    capsule, crescent = outlines
    centre_x, centre_y, segment_x, segment_y, segment_radius, membrane, diseased = numbers
    left, upper, mpp, reach = frame
    height, width = structure.shape
    for row in range(
        max(int((centre_y - reach - upper) / mpp), 0),
        min(int((centre_y + reach - upper) / mpp) + 2, height),
    ):
        for column in range(
            max(int((centre_x - reach - left) / mpp), 0),
            min(int((centre_x + reach - left) / mpp) + 2, width),
        ):
            wx, wy = left + (column + 0.5) * mpp, upper + (row + 0.5) * mpp
            x = wx - centre_x + 1.1 * noise_at(bank, wx * 0.11, wy * 0.11)
            y = wy - centre_y + 1.1 * noise_at(bank, wx * 0.11 + 91.0, wy * 0.11)
            radius = math.sqrt(x * x + y * y)
            turn = math.atan2(y, x) * (capsule.size / (2 * math.pi))
            turn = turn + capsule.size if turn < 0 else turn
            place = int(turn)
            part = turn - place
            place, after = place % capsule.size, (place + 1) % capsule.size
            depth = capsule[place] * (1 - part) + capsule[after] * part - radius
            inside = _cover(-depth, mpp)
            if inside <= 0.0:
                continue
            now = _tuft(tuft, uptake, bank, x, y, (wx, wy, mpp))
            lesion = MSPGN_BIT if diseased > 0 and now[2] == MESANGIUM else 0
            if segment_radius > 0:
                dx, dy = x - segment_x, y - segment_y
                wobble = 2.2 * noise_at(bank, wx * 0.09, wy * 0.09 + 55.0)
                scar = math.sqrt(dx * dx + dy * dy) - segment_radius + wobble
                cloud = noise_at(bank, wx * 0.13, wy * 0.13) + 0.4 * noise_at(
                    bank, wx * 0.5, wy * 0.5
                )
                cover = _cover(scar, mpp)
                now = _mix(now, uptake, SCLEROSIS, 1.0 + 0.13 * cloud, cover)
                now = _mix(now, uptake, HYALINE, 1.0, cover * _cover(1.35 - cloud, 0.3))
                lesion = FSG_BIT if cover > 0.5 else lesion
            inner = crescent[place] * (1 - part) + crescent[after] * part
            if inner < capsule[place] - 0.1:
                strands = noise_at(bank, wx * 0.22, wy * 0.22) + 0.5 * noise_at(
                    bank, wx * 0.8, wy * 0.8
                )
                cover = _cover(inner - radius + 0.8 * strands, mpp)
                now = _mix(now, uptake, CRESCENT, 1.0 + 0.25 * strands, cover)
                lesion = CGN_BIT if cover > 0.5 else lesion
            wall = _cover(depth - membrane, mpp)
            now = _mix(now, uptake, CAPSULE, 1.0, wall)
            lesion = 0 if wall > 0.5 else lesion
            amounts[0, row, column] += (now[0] - amounts[0, row, column]) * inside
            amounts[1, row, column] += (now[1] - amounts[1, row, column]) * inside
            if inside > 0.5:
                structure[row, column] = now[2]
                lesion_bits[row, column] = lesion
