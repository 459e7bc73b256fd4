"""What is painted on and with: maps of a view, uptakes, noise, and laying one over another."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.texture import FloatArray
from glomerulab.runtime.jit import compiled

__all__ = ["Canvas", "Ink", "Paint", "cover", "lay", "pixel_span", "put"]

Paint = tuple[float, float, int]
"""Amounts of both stains, and the material."""


class Canvas(NamedTuple):
    """One view of a scene, painted in place."""

    amounts: FloatArray
    """Shape (2, H, W)."""
    structure: npt.NDArray[np.uint8]
    """Shape (H, W)."""
    lesion_bits: npt.NDArray[np.uint8]
    """Shape (H, W)."""
    left_um: float
    upper_um: float
    mpp: float


class Ink(NamedTuple):
    """What every painter needs."""

    uptake: FloatArray
    """`material_table` of the stain."""
    bank: FloatArray
    """`noise_bank`."""


@compiled
def cover(distance: float, width: float) -> float:
    """Return the share of a pixel inside an edge, 0 to 1.

    `distance` is to the edge, negative inside; `width` is that of the transition, at least a pixel
    for a sharp edge.
    """
    return min(max(0.5 - distance / width, 0.0), 1.0)


@compiled
def lay(now: Paint, ink: Ink, material: int, gain: float, share: float) -> Paint:
    """Lay a share of a material over what is there."""
    if share <= 0.0:
        return now
    first = now[0] + (ink.uptake[material, 0] * gain - now[0]) * share
    second = now[1] + (ink.uptake[material, 1] * gain - now[1]) * share
    return first, second, material if share > 0.5 else now[2]


@compiled
def put(canvas: Canvas, row: int, column: int, paint: Paint, share: float) -> None:
    """Put paint on a pixel, which keeps what the share leaves of it."""
    amounts = canvas.amounts
    amounts[0, row, column] += (paint[0] - amounts[0, row, column]) * share
    amounts[1, row, column] += (paint[1] - amounts[1, row, column]) * share
    if share > 0.5:
        canvas.structure[row, column] = paint[2]


@compiled
def pixel_span(middle: float, reach: float, start: float, mpp: float, n: int) -> tuple[int, int]:
    """Return the first pixel and the one after the last that an object can touch."""
    first = int((middle - reach - start) / mpp) - 1
    last = int((middle + reach - start) / mpp) + 2
    return max(first, 0), min(max(last, 0), n)
