"""The painting of one glomerulus, compiled and block by block.

Works in coordinates of the glomerulus: origin at the centre, lengths in µm, y down.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.cortex import distance_to_core
from glomerulab.phantom.primitives import (
    CORTEX_BIT,
    GLOMERULUS_BIT,
    MAX_GATHERED,
    SCLEROSED_BIT,
    TUFT_BIT,
    Canvas,
    FloatArray,
    Ink,
    Paint,
    SiteGrid,
    cover,
    gather,
    lay,
    noise_at,
    pixel_span,
    put,
    two_nearest,
)
from glomerulab.runtime.jit import compiled

MSPGN_BIT, FSG_BIT, CGN_BIT = 1, 2, 4
"""Bits of a lesion map."""

# Codes of `Material`; the compiler takes no enum.
BLOOD, CAPSULE, SPACE, TUFT_CELL, LOOP_WALL, LOOP_LUMEN, MESANGIUM = 9, 10, 11, 12, 13, 14, 15
SCLEROSIS, HYALINE, CRESCENT, FIBROSIS = 16, 17, 18, 20

BLOCK_PX, BLOCK_UM = 8, 8.0
"""Maximal side of a block, within which few sites matter."""
WARP_UM = 0.9
WARP_REACH_UM = 5.0
TUFT_RIM_UM = 2.5
"""Cells around the outermost loops that belong to the tuft."""


Places = npt.NDArray[np.int32]


class GlomerulusShape(NamedTuple):
    """Geometry for the painter, in µm; all but the centre in coordinates of the glomerulus."""

    x_um: float
    y_um: float
    reach_um: float
    capsule_um: FloatArray
    """Outer radius of the capsule by direction."""
    crescent_um: FloatArray
    """Inner radius of the crescent by direction, the capsule's where there is none."""
    membrane_um: float
    segment: tuple[float, float, float]
    """Centre and radius of the scar."""
    diseased: bool
    """Whether the mesangium is diseased."""
    tuft: SiteGrid
    sclerosed: bool
    """Whether the whole glomerulus is a scar."""
    fibrous: float
    """Share of the crescent that is fibrous, 0 to 1."""
    is_cut: bool
    """Whether the edge of the tissue cuts it."""


LOOP, MESANGIAL, SCARRED = 0, 1, 2
"""Kinds of the sites of a tuft."""


@compiled
def paint_glomerulus(
    canvas: Canvas, shape: GlomerulusShape, ink: Ink, cores: FloatArray, number: int
) -> None:
    """Paint a glomerulus on a canvas, in place.

    `number` marks its pixels in `Canvas.objects`; `cores` matter if the edge of the tissue cuts it.
    """
    height, width = canvas.structure.shape
    rows = pixel_span(shape.y_um, shape.reach_um, canvas.upper_um, canvas.mpp, height)
    columns = pixel_span(shape.x_um, shape.reach_um, canvas.left_um, canvas.mpp, width)
    found = np.empty(MAX_GATHERED, np.int32)
    block = max(min(BLOCK_PX, int(BLOCK_UM / canvas.mpp)), 1)
    half = 0.5 * block * canvas.mpp
    for upper in range(rows[0], rows[1], block):
        y = canvas.upper_um + upper * canvas.mpp + half - shape.y_um
        for left in range(columns[0], columns[1], block):
            x = canvas.left_um + left * canvas.mpp + half - shape.x_um
            if math.sqrt(x * x + y * y) > shape.reach_um + 2.0 * half:
                continue
            n = gather(shape.tuft, x, y, 1.5 * half + WARP_REACH_UM, found)
            for row in range(upper, min(upper + block, rows[1])):
                for column in range(left, min(left + block, columns[1])):
                    _paint_pixel(canvas, (row, column, number), shape, ink, (found[:n], cores))


@compiled
def _paint_pixel(
    canvas: Canvas,
    pixel: tuple[int, int, int],
    shape: GlomerulusShape,
    ink: Ink,
    around: tuple[Places, FloatArray],
) -> None:
    row, column, number = pixel
    among, cores = around
    wx = canvas.left_um + (column + 0.5) * canvas.mpp
    wy = canvas.upper_um + (row + 0.5) * canvas.mpp
    x = wx - shape.x_um + WARP_UM * noise_at(ink.bank, wx * 0.12, wy * 0.12)
    y = wy - shape.y_um + WARP_UM * noise_at(ink.bank, wx * 0.12 + 91.0, wy * 0.12)
    radius = math.sqrt(x * x + y * y)
    outer, inner = _outlines(shape, x, y)
    depth = outer - radius
    inside = cover(-depth, canvas.mpp)
    if inside > 0.0 and shape.is_cut:
        inside *= cover(distance_to_core(cores, ink.bank, wx, wy), canvas.mpp)
    if inside <= 0.0:
        return
    place = (wx, wy, canvas.mpp)
    now, lesion, in_tuft = _tuft(shape, ink, among, (x, y), place)
    if inner < outer - 0.1:
        strands = noise_at(ink.bank, wx * 0.22, wy * 0.22)
        strands += 0.5 * noise_at(ink.bank, wx * 0.8, wy * 0.8)
        share = cover(inner - radius + 1.1 * strands, canvas.mpp)
        now = lay(now, ink, CRESCENT, 1.0 + 0.25 * strands, share)
        if shape.fibrous > 0.0:
            patch = noise_at(ink.bank, wx * 0.05, wy * 0.05 + 23.0) + 1.7 - 3.4 * shape.fibrous
            collagen = share * cover(4.0 * patch, 4.0)
            now = lay(now, ink, FIBROSIS, 1.25 + 0.3 * strands, collagen)
        if share > 0.5:
            lesion, in_tuft = CGN_BIT, False
    wall = cover(depth - shape.membrane_um, canvas.mpp)
    now = lay(now, ink, CAPSULE, 1.0, wall)
    put(canvas, row, column, now, inside)
    if inside > 0.5:
        canvas.lesion_bits[row, column] = 0 if wall > 0.5 else lesion
        bits = CORTEX_BIT | GLOMERULUS_BIT
        if shape.sclerosed:
            bits |= SCLEROSED_BIT
        if in_tuft and wall <= 0.5:
            bits |= TUFT_BIT
        canvas.masks[row, column] = bits
        canvas.objects[row, column] = number


@compiled
def _outlines(shape: GlomerulusShape, x: float, y: float) -> tuple[float, float]:
    """Return the radii of capsule and crescent in the direction of a place."""
    n = shape.capsule_um.size
    turn = math.atan2(y, x) * (n / (2 * math.pi))
    turn = turn + n if turn < 0.0 else turn
    part = turn - math.floor(turn)
    here = int(turn) % n
    after = (here + 1) % n
    outer = shape.capsule_um[here] * (1.0 - part) + shape.capsule_um[after] * part
    inner = shape.crescent_um[here] * (1.0 - part) + shape.crescent_um[after] * part
    return outer, inner


@compiled
def _tuft(
    shape: GlomerulusShape,
    ink: Ink,
    among: Places,
    at: tuple[float, float],
    place: tuple[float, float, float],
) -> tuple[Paint, int, bool]:
    """Return the paint and lesion bit at a place of tuft, scar or space, and if it is tuft."""
    wx, wy, _ = place
    # The walls of single loops are less smooth than the outlines.
    x = at[0] + 1.2 * noise_at(ink.bank, wx * 0.22, wy * 0.22)
    y = at[1] + 1.2 * noise_at(ink.bank, wx * 0.22 + 17.0, wy * 0.22)
    nearest, first, second = two_nearest(shape.tuft.sites, among, among.size, x, y)
    now = lay((0.0, 0.0, SPACE), ink, SPACE, 1.0, 1.0)
    if shape.sclerosed:  # collagen fills what was Bowman's space
        waves = noise_at(ink.bank, wx * 0.25, wy * 0.12) + noise_at(ink.bank, wx * 0.6, wy * 0.6)
        now = lay(now, ink, FIBROSIS, max(1.1 + 0.2 * waves, 0.5), 1.0)
        now = (now[0], now[1], SPACE)
    scarred = -1e9
    in_tuft = nearest >= 0 and first < TUFT_RIM_UM
    if nearest >= 0 and first < (TUFT_RIM_UM if shape.sclerosed else 4.0):
        now = _loop(shape.tuft.sites[nearest], first, second, ink, place)
        if shape.tuft.sites[nearest, 6] == SCARRED:
            scarred = 2.5 - first
    lesion = MSPGN_BIT if shape.diseased and now[2] == MESANGIUM else 0
    scar_x, scar_y, scar_radius = shape.segment
    if scar_radius > 0.0:
        dx, dy = at[0] - scar_x, at[1] - scar_y
        depth = scar_radius - math.sqrt(dx * dx + dy * dy)
        wobble = 2.5 * noise_at(ink.bank, wx * 0.08, wy * 0.08 + 55.0)
        # Over the tuft the scar ends between loops; over Bowman's space it is the adhesion.
        over_space = now[2] == SPACE
        reach = max(scarred, depth - 2.0 + wobble if over_space else depth - 7.0 + wobble)
        if reach > -place[2]:
            now, lesion = _scar(now, lesion, -reach, ink, place)
            return now, 0 if shape.sclerosed else lesion, in_tuft or reach > 0.0
    return now, lesion, in_tuft


@compiled
def _loop(
    site: FloatArray, first: float, second: float, ink: Ink, place: tuple[float, float, float]
) -> Paint:
    """Return the paint of a capillary loop, mesangial area or the cells between them."""
    wx, wy, mpp = place
    kind, free = site[6], site[8]
    grain = noise_at(ink.bank, wx * 0.9, wy * 0.9)
    now = lay((0.0, 0.0, SPACE), ink, SPACE, 1.0, 1.0)
    now = lay(now, ink, TUFT_CELL, 1.0 + 0.22 * grain, cover(first - 1.5, mpp))
    # The common wall lies halfway to the neighbour's ellipse; it has gaps.
    gap = 0.65 + 0.55 * noise_at(ink.bank, wx * 0.16 + 71.0, wy * 0.16)
    edge = max(first, 0.5 * (first - second) + gap)
    if kind == MESANGIAL:
        matrix = first - 1.0 + 0.6 * noise_at(ink.bank, wx * 0.3, wy * 0.3)
        return lay(now, ink, MESANGIUM, 1.0 + 0.16 * grain, cover(matrix, mpp))
    wall = cover(abs(edge + 0.2) - 0.5, max(mpp, 0.5))
    now = lay(now, ink, LOOP_WALL, 1.0 + 0.2 * grain, wall)
    collapse = 3.4 * max(free - 0.45, 0.0) / 0.55
    lumen = edge + 0.7 + collapse
    now = lay(now, ink, LOOP_LUMEN, 1.0, cover(lumen, max(mpp, 0.6)))
    if free < 0.14:
        cell = noise_at(ink.bank, wx * 0.3, wy * 0.3)
        share = cover(lumen + 0.8 + 0.8 * cell, max(mpp, 0.6)) * 0.92
        now = lay(now, ink, BLOOD, 1.0 + 0.2 * cell, share)
    return now


@compiled
def _scar(
    now: Paint, lesion: int, scar: float, ink: Ink, place: tuple[float, float, float]
) -> tuple[Paint, int]:
    """Lay the sclerosed segment over tuft and Bowman's space."""
    wx, wy, mpp = place
    cloud = noise_at(ink.bank, wx * 0.10, wy * 0.10)
    strands = noise_at(ink.bank, wx * 0.16 + wy * 0.32, wy * 0.16 - wx * 0.32)
    share = cover(scar, mpp)
    gain = 1.0 + 0.16 * cloud + 0.20 * strands + 0.08 * noise_at(ink.bank, wx, wy)
    now = lay(now, ink, SCLEROSIS, gain, share)
    now = lay(now, ink, HYALINE, 1.0, share * cover(1.25 - cloud, 0.5))
    # Slits where loops have closed.
    slit = cover(1.65 - strands + 0.6 * cloud, 0.6) * 0.8
    now = lay(now, ink, LOOP_LUMEN, 1.0, share * slit)
    return now, FSG_BIT if share > 0.5 else lesion
