"""Cell nuclei: tables of ellipses, and their painting over what lies below."""

import math

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.compiled import compiled
from glomerulab.phantom.texture import FloatArray, noise_at

__all__ = ["NO_NUCLEI", "N_NUCLEUS_COLUMNS", "nuclei_table", "paint_nuclei"]

N_NUCLEUS_COLUMNS = 7
"""x, y, long half-axis, short half-axis (µm), cos and sin of the long axis, darkness."""

NO_NUCLEI: FloatArray = np.zeros((0, N_NUCLEUS_COLUMNS), np.float32)

NUCLEUS = 19  # Material.NUCLEUS, as the compiler wants it


def nuclei_table(
    places: npt.NDArray[np.floating],
    *,
    half_axes_um: tuple[float, float],
    angles: npt.NDArray[np.floating],
    rng: np.random.Generator,
) -> FloatArray:
    """Give places and directions their nuclei, each a little different.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        Centres (x, y) in µm.
    half_axes_um : tuple of float
        Long and short half-axis of the kind of cell.
    angles : ndarray of float, shape (n,)
        Direction of the long axis, radians.
    rng : Generator

    Returns
    -------
    ndarray of float32, shape (n, 7)
    """
    n = len(places)
    table = np.empty((n, N_NUCLEUS_COLUMNS), np.float32)
    table[:, 0:2] = places
    table[:, 2] = half_axes_um[0] * rng.uniform(0.82, 1.18, n)
    table[:, 3] = half_axes_um[1] * rng.uniform(0.82, 1.18, n)
    table[:, 4] = np.cos(angles)
    table[:, 5] = np.sin(angles)
    # A 3 µm section cuts some nuclei tangentially: those look pale.
    table[:, 6] = np.where(rng.random(n) < 0.15, rng.uniform(0.4, 0.7, n), rng.uniform(0.8, 1.2, n))
    return table


@compiled
def paint_nuclei(
    amounts: FloatArray,
    structure: npt.NDArray[np.uint8],
    nuclei: FloatArray,
    uptake: FloatArray,
    bank: FloatArray,
    left_um: float,
    upper_um: float,
    mpp: float,
) -> None:
    """Paint nuclei into concentrations (2, H, W) and a structure map (H, W), in place."""
    height, width = structure.shape
    for item in range(nuclei.shape[0]):
        x, y, long, short, cos, sin, darkness = nuclei[item]
        reach = 1.3 * long
        first_row = max(int((y - reach - upper_um) / mpp), 0)
        last_row = min(int((y + reach - upper_um) / mpp) + 2, height)
        first_column = max(int((x - reach - left_um) / mpp), 0)
        last_column = min(int((x + reach - left_um) / mpp) + 2, width)
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                px = left_um + (column + 0.5) * mpp
                py = upper_um + (row + 0.5) * mpp
                dx, dy = px - x, py - y
                along = (dx * cos + dy * sin) / long
                across = (dy * cos - dx * sin) / short
                bumps = 0.12 * noise_at(bank, px * 0.45 + item * 7.3, py * 0.45)
                q = math.sqrt(along * along + across * across) + bumps
                cover = 0.5 + (1.0 - q) * short / mpp
                if cover <= 0.0:
                    continue
                cover = min(cover, 1.0) * 0.94
                chromatin = 0.80 + 0.17 * noise_at(bank, px * 1.3, py * 1.3) + 0.20 * q * q * q
                blue = uptake[NUCLEUS, 0] * darkness * max(chromatin, 0.3)
                amounts[0, row, column] += (blue - amounts[0, row, column]) * cover
                second = uptake[NUCLEUS, 1]
                amounts[1, row, column] += (second - amounts[1, row, column]) * cover
                if cover > 0.47:
                    structure[row, column] = NUCLEUS
