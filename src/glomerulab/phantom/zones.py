"""Where a section is scarred, and where the cortex borders on the medulla."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.phantom.primitives import FloatArray, noise_at
from glomerulab.runtime.jit import compiled

FADE_UM = 80.0
"""Beyond this distance no noise moves the border of a zone."""
GRID_UM = 10.0
MAX_SCARS = 400


class Zones(NamedTuple):
    """Zones of the tissue, in µm of the scene."""

    scar_um: FloatArray
    """Depth within the scars at the nodes of a grid from the origin, negative outside."""
    border_um: float
    """x of the border between cortex and medulla."""
    side: float
    """1.0 with the medulla to the right of it, -1.0 to the left, 0.0 without medulla."""


NO_ZONES = Zones(np.full((2, 2), -1e9, np.float32), 0.0, 0.0)


@compiled
def scar_depth(zones: Zones, bank: FloatArray, x: float, y: float) -> float:
    """Return how deep a place lies within a scar, in µm; negative outside."""
    nodes = zones.scar_um
    column = min(max(x / GRID_UM, 0.0), nodes.shape[1] - 1.001)
    row = min(max(y / GRID_UM, 0.0), nodes.shape[0] - 1.001)
    i, j = int(row), int(column)
    lower, right = row - i, column - j
    above = nodes[i, j] * (1.0 - right) + nodes[i, j + 1] * right
    below = nodes[i + 1, j] * (1.0 - right) + nodes[i + 1, j + 1] * right
    depth = above * (1.0 - lower) + below * lower
    if -FADE_UM < depth < FADE_UM:
        depth += 16.0 * noise_at(bank, x * 0.012 + 7.0, y * 0.012)
        depth += 4.0 * noise_at(bank, x * 0.05, y * 0.05 + 31.0)
    return float(depth)


@compiled
def medulla_depth(zones: Zones, bank: FloatArray, x: float, y: float) -> float:
    """Return how deep a place lies within the medulla, in µm; negative in the cortex."""
    if zones.side == 0.0:
        return -1e9
    depth = zones.side * (x - zones.border_um)
    if -FADE_UM < depth < FADE_UM:
        depth += 16.0 * noise_at(bank, x * 0.010, y * 0.010 + 19.0)
    return depth


@compiled
def zones_at(
    zones: Zones, bank: FloatArray, xs: npt.NDArray[np.float64], ys: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return `scar_depth` and `medulla_depth` of many places, shape (2, n)."""
    depths = np.empty((2, xs.size))
    for item in range(xs.size):
        depths[0, item] = scar_depth(zones, bank, xs[item], ys[item])
        depths[1, item] = medulla_depth(zones, bank, xs[item], ys[item])
    return depths


def draw_zones(
    box_um: tuple[float, float, float, float],
    scarred: float,
    rng: np.random.Generator,
    *,
    border_um: float = 0.0,
    side: float = 0.0,
    around: Sequence[Point] = (),
) -> Zones:
    """Draw scars, unions of discs, that cover a share of the cortex.

    Parameters
    ----------
    box_um : tuple of float
        Left, upper, right, lower edge of the cortex; at least 0.
    scarred : float
        Share of the cortex, 0 to 1.
    border_um, side : float
        As in `Zones`.
    around : sequence of (x, y)
        Places where the first scars lie.
    """
    left, upper, right, lower = box_um
    xs, ys = np.meshgrid(
        np.arange(0.0, right + 2 * GRID_UM, GRID_UM), np.arange(0.0, lower + 2 * GRID_UM, GRID_UM)
    )
    in_box = (xs > left) & (xs < right) & (ys > upper) & (ys < lower)
    nodes = np.full(xs.shape, -1e9)
    centres = list(around)
    for _ in range(MAX_SCARS):
        free = np.flatnonzero(in_box & (nodes < 0))
        missing = scarred * in_box.sum() - (in_box.sum() - free.size)
        if missing < 0.004 * in_box.sum():
            break
        chosen = int(rng.choice(free))
        x, y = centres.pop(0) if centres else (xs.flat[chosen], ys.flat[chosen])
        largest = 1.1 * math.sqrt(missing * GRID_UM**2 / math.pi)
        radius = max(min(float(rng.uniform(70.0, 230.0)), largest), 20.0)
        nodes = np.maximum(nodes, radius - np.hypot(xs - x, ys - y))
    return Zones(nodes.astype(np.float32), border_um, side)
