"""Cell nuclei: tables of ellipses, and their painting over what lies below."""

import math

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.canvas import Canvas, Ink, cover, pixel_span, put
from glomerulab.phantom.sites import far_apart
from glomerulab.phantom.texture import FloatArray, noise_at
from glomerulab.runtime.jit import compiled

__all__ = ["NO_NUCLEI", "N_NUCLEUS_COLUMNS", "nuclei_table", "paint_nuclei", "spread_out"]

N_NUCLEUS_COLUMNS = 7
"""x, y, long half-axis, short half-axis (µm), cos and sin of the long axis, darkness."""

NO_NUCLEI: FloatArray = np.zeros((0, N_NUCLEUS_COLUMNS), np.float32)

OVERLAP = 0.88
MOST_HALF_AXIS_UM = 6.0

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


def spread_out(nuclei: FloatArray, *, n_first: int) -> npt.NDArray[np.bool_]:
    """Choose nuclei that hardly overlap.

    Parameters
    ----------
    nuclei : ndarray of float32, shape (n, 7)
    n_first : int
        So many at the beginning are kept in any case.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    places = nuclei[:, :2].astype(np.float64)
    radii = OVERLAP * np.sqrt(nuclei[:, 2] * nuclei[:, 3]).astype(np.float64)
    kept = far_apart(places[:, 0], places[:, 1], radii, 2 * MOST_HALF_AXIS_UM)
    kept[:n_first] = True
    return kept


@compiled
def paint_nuclei(canvas: Canvas, nuclei: FloatArray, ink: Ink) -> None:
    """Paint nuclei over what is on a canvas, in place."""
    height, width = canvas.structure.shape
    mpp = canvas.mpp
    for item in range(nuclei.shape[0]):
        nucleus = nuclei[item]
        reach = 1.3 * nucleus[2]
        rows = pixel_span(nucleus[1], reach, canvas.upper_um, mpp, height)
        columns = pixel_span(nucleus[0], reach, canvas.left_um, mpp, width)
        for row in range(rows[0], rows[1]):
            y = canvas.upper_um + (row + 0.5) * mpp
            for column in range(columns[0], columns[1]):
                x = canvas.left_um + (column + 0.5) * mpp
                share, chromatin = _nucleus_at(nucleus, ink.bank, x, y, mpp)
                if share > 0.0:
                    paint = (
                        ink.uptake[NUCLEUS, 0] * nucleus[6] * chromatin,
                        ink.uptake[NUCLEUS, 1],
                        NUCLEUS,
                    )
                    put(canvas, row, column, paint, share)


@compiled
def _nucleus_at(
    nucleus: FloatArray, bank: FloatArray, x: float, y: float, mpp: float
) -> tuple[float, float]:
    """Return how much of a place a nucleus covers, and how dense its chromatin is there."""
    dx, dy = x - nucleus[0], y - nucleus[1]
    along = (dx * nucleus[4] + dy * nucleus[5]) / nucleus[2]
    across = (dy * nucleus[4] - dx * nucleus[5]) / nucleus[3]
    radius = math.sqrt(along * along + across * across)
    if radius > 1.6:
        return 0.0, 0.0
    radius += 0.13 * noise_at(bank, x * 0.45 + nucleus[6] * 50.0, y * 0.45)
    share = 0.94 * cover((radius - 1.0) * nucleus[3], max(mpp, 0.35))
    clumps = noise_at(bank, x * 1.25, y * 1.25)
    return share, max(0.78 + 0.18 * clumps + 0.22 * radius * radius * radius, 0.3)
