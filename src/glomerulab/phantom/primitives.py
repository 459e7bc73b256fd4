"""Building blocks of a scene: noise, paint, cells that fill a plane, and nuclei.

Noise is smooth and repeats after 256 cells; one fixed bank of it serves every image. Cells are
elliptic: tubules in the cortex, capillary loops in a tuft. A cell is the part of its ellipse that
is nearer to it than to any other, so that neighbours meet in a common wall, as epithelia do. A
grid of buckets keeps the search for the nearest two short.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glomerulab.runtime.jit import compiled

FloatArray = npt.NDArray[np.float32]

CELLS = 256
BANK_SEED = 20220910


@cache
def noise_bank() -> FloatArray:
    """Return the noise, float32, shape (256, 256), mean 0, standard deviation 1, periodic."""
    white = np.random.default_rng(BANK_SEED).standard_normal((CELLS, CELLS))
    smooth = ndimage.gaussian_filter(white, 0.7, mode="wrap")
    bank: FloatArray = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    bank.setflags(write=False)
    return bank


@compiled
def noise_at(bank: FloatArray, x: float, y: float) -> float:
    """Interpolate the noise at a place given in cells."""
    column, row = math.floor(x), math.floor(y)
    right, lower = x - column, y - row
    left_cell, upper_cell = int(column) & 255, int(row) & 255
    right_cell, lower_cell = (left_cell + 1) & 255, (upper_cell + 1) & 255
    above = bank[upper_cell, left_cell] * (1 - right) + bank[upper_cell, right_cell] * right
    below = bank[lower_cell, left_cell] * (1 - right) + bank[lower_cell, right_cell] * right
    return float(above * (1 - lower) + below * lower)


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
    masks: npt.NDArray[np.uint16]
    """Structures of every pixel, by the bits below; shape (H, W)."""
    objects: npt.NDArray[np.int32]
    """Object of every pixel, 0 for none; glomeruli come first in a scene, then arteries, then
    tubules and small vessels; shape (H, W)."""
    left_um: float
    upper_um: float
    mpp: float


# Bits of `Canvas.masks`, in the order of `glomerulab.structures.classes`; the compiler takes
# neither enum nor tuple.
CORTEX_BIT, MEDULLA_BIT, FIBROSIS_BIT, TUBULE_BIT, ATROPHIC_BIT = 1, 2, 4, 8, 16
ARTERY_BIT, CAPILLARY_BIT, GLOMERULUS_BIT, SCLEROSED_BIT, TUFT_BIT = 32, 64, 128, 256, 512


def blank_canvas(shape: tuple[int, int], *, left_um: float, upper_um: float, mpp: float) -> Canvas:
    """Return a canvas of glass."""
    return Canvas(
        np.zeros((2, *shape), np.float32),
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.uint8),
        np.zeros(shape, np.uint16),
        np.zeros(shape, np.int32),
        left_um,
        upper_um,
        mpp,
    )


class Ink(NamedTuple):
    """Stain uptake and noise."""

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
    """Blend a share of a material over the present paint."""
    if share <= 0.0:
        return now
    first = now[0] + (ink.uptake[material, 0] * gain - now[0]) * share
    second = now[1] + (ink.uptake[material, 1] * gain - now[1]) * share
    return first, second, material if share > 0.5 else now[2]


@compiled
def put(canvas: Canvas, row: int, column: int, paint: Paint, share: float) -> None:
    """Blend paint into a pixel."""
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


N_SITE_COLUMNS = 9
"""Columns of a table of sites: x, y and short radius in µm, unit vector (2) of the long axis, long
over short axis, kind, height of the epithelium in µm, and a free number from 0 to 1."""

MAX_GATHERED = 512
"""Capacity for the sites around one block of pixels."""

NOWHERE = 1e9


class SiteGrid(NamedTuple):
    """Sites sorted into square buckets."""

    sites: FloatArray
    """Shape (n, `N_SITE_COLUMNS`), sorted by bucket."""
    starts: npt.NDArray[np.int32]
    """Where each bucket begins in `sites`; shape (n_rows * n_columns + 1,)."""
    n_columns: int
    n_rows: int
    bucket_um: float
    left_um: float
    upper_um: float
    reach_um: float
    """Twice the long half-axis of the largest ellipse; sites beyond it do not matter."""


def site_grid(sites: FloatArray, *, bucket_um: float) -> SiteGrid:
    """Sort sites into buckets.

    Parameters
    ----------
    sites : ndarray of float32, shape (n, 9)
        n may be 0.
    bucket_um : float
        Side of a bucket; fastest near the distance of neighbours.
    """
    if len(sites) == 0:
        return SiteGrid(sites, np.zeros(2, np.int32), 1, 1, bucket_um, 0.0, 0.0, 0.0)
    left, upper = float(sites[:, 0].min()), float(sites[:, 1].min())
    columns = ((sites[:, 0] - left) // bucket_um).astype(np.int64)
    rows = ((sites[:, 1] - upper) // bucket_um).astype(np.int64)
    n_columns, n_rows = int(columns.max()) + 1, int(rows.max()) + 1
    buckets = rows * n_columns + columns
    order = np.argsort(buckets, kind="stable")
    counts = np.bincount(buckets, minlength=n_rows * n_columns)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    reach = 2.0 * float((sites[:, 2] * sites[:, 5]).max())
    return SiteGrid(
        np.ascontiguousarray(sites[order]), starts, n_columns, n_rows, bucket_um, left, upper, reach
    )


@compiled
def site_distance(site: FloatArray, x: float, y: float) -> float:
    """Return the distance to the edge of a site's ellipse, negative inside, in short-axis µm.

    It changes by at most 1 µm per µm, which `gather` relies on.
    """
    dx, dy = x - site[0], y - site[1]
    along = (dx * site[3] + dy * site[4]) / site[5]
    across = dy * site[3] - dx * site[4]
    return math.sqrt(along * along + across * across) - float(site[2])


@compiled
def gather(grid: SiteGrid, x: float, y: float, slack: float, found: npt.NDArray[np.int32]) -> int:
    """List the sites that can be among the two nearest anywhere within a disc.

    `slack` is the radius of the disc around (x, y). Writes their indices to `found` and returns
    their number.
    """
    window = grid.reach_um + slack
    first_column = max(math.floor((x - window - grid.left_um) / grid.bucket_um), 0)
    last_column = min(math.floor((x + window - grid.left_um) / grid.bucket_um), grid.n_columns - 1)
    first_row = max(math.floor((y - window - grid.upper_um) / grid.bucket_um), 0)
    last_row = min(math.floor((y + window - grid.upper_um) / grid.bucket_um), grid.n_rows - 1)
    first, second, n = NOWHERE, NOWHERE, 0
    if last_column < first_column:
        return n
    for keep in (False, True):
        for row in range(first_row, last_row + 1):
            start = row * grid.n_columns + first_column
            stop = row * grid.n_columns + last_column + 1
            for place in range(grid.starts[start], grid.starts[stop]):
                distance = site_distance(grid.sites[place], x, y)
                if keep:
                    if distance <= second + 2.0 * slack and n < found.size:
                        found[n] = place
                        n += 1
                elif distance < first:
                    first, second = distance, first
                elif distance < second:
                    second = distance
    return n


@compiled
def two_nearest(
    sites: FloatArray, among: npt.NDArray[np.int32], n: int, x: float, y: float
) -> tuple[int, float, float]:
    """Find the cell at a place among the first `n` gathered sites.

    Returns the nearest site (-1 if there is none), the distance to the edge of its ellipse
    (negative inside) and the same for the second nearest, all in µm.
    """
    first, second, nearest = NOWHERE, NOWHERE, -1
    for item in range(n):
        distance = site_distance(sites[among[item]], x, y)
        if distance < first:
            first, second, nearest = distance, first, among[item]
        elif distance < second:
            second = distance
    return nearest, first, second


@compiled
def far_apart(
    xs: npt.NDArray[np.float64],
    ys: npt.NDArray[np.float64],
    radii: npt.NDArray[np.float64],
    bucket_um: float,
) -> npt.NDArray[np.bool_]:
    """Keep, in order, each disc that does not overlap one kept before it.

    `bucket_um` must be at least twice the largest radius. Shape (n,) in and out.
    """
    kept = np.zeros(xs.size, np.bool_)
    if xs.size == 0:
        return kept
    left, upper = xs.min(), ys.min()
    n_columns = int((xs.max() - left) / bucket_um) + 1
    n_rows = int((ys.max() - upper) / bucket_um) + 1
    last = np.full(n_columns * n_rows, -1, np.int64)
    previous = np.full(xs.size, -1, np.int64)
    for item in range(xs.size):
        column = int((xs[item] - left) / bucket_um)
        row = int((ys[item] - upper) / bucket_um)
        free = True
        for near_row in range(max(row - 1, 0), min(row + 2, n_rows)):
            for near_column in range(max(column - 1, 0), min(column + 2, n_columns)):
                other = last[near_row * n_columns + near_column]
                while free and other >= 0:
                    reach = radii[item] + radii[other]
                    dx, dy = xs[item] - xs[other], ys[item] - ys[other]
                    free = dx * dx + dy * dy >= reach * reach
                    other = previous[other]
        if free:
            kept[item] = True
            previous[item] = last[row * n_columns + column]
            last[row * n_columns + column] = item
    return kept


N_NUCLEUS_COLUMNS = 7
"""x, y, long half-axis, short half-axis (µm), cos and sin of the long axis, darkness."""

OVERLAP = 0.88
MAX_HALF_AXIS_UM = 6.0

NUCLEUS = 19  # Material.NUCLEUS; the compiler takes no enum


def nuclei_table(
    places: npt.NDArray[np.floating],
    *,
    half_axes_um: tuple[float, float],
    angles: npt.NDArray[np.floating],
    rng: np.random.Generator,
) -> FloatArray:
    """Draw a nucleus of random size and darkness at each place.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
        Centres (x, y) in µm.
    half_axes_um : tuple of float
        Long and short half-axis of the kind of cell.
    angles : ndarray of float, shape (n,)
        Direction of the long axis, radians.

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
        Number of nuclei at the beginning that are always kept.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    places = nuclei[:, :2].astype(np.float64)
    radii = OVERLAP * np.sqrt(nuclei[:, 2] * nuclei[:, 3]).astype(np.float64)
    kept = far_apart(places[:, 0], places[:, 1], radii, 2 * MAX_HALF_AXIS_UM)
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
    """Return the share of a place that a nucleus covers, and its chromatin density there."""
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
