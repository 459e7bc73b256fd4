"""Elliptic cells that fill a plane: tubules in the cortex, capillary loops in a tuft.

A cell is the part of its ellipse that is nearer to it than to any other, so that neighbours meet
in a common wall, as epithelia do. A grid of buckets keeps the search for the nearest two short.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.phantom.texture import FloatArray
from glomerulab.runtime.jit import compiled

__all__ = [
    "MAX_GATHERED",
    "N_SITE_COLUMNS",
    "SiteGrid",
    "far_apart",
    "gather",
    "site_distance",
    "site_grid",
    "two_nearest",
]

N_SITE_COLUMNS = 9
"""Columns of a table of sites: x, y and short radius in µm, unit vector (2) of the long axis, long
over short axis, kind, height of the epithelium in µm, and a free number from 0 to 1."""

MAX_GATHERED = 512
"""Room for the sites around one block of pixels."""

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
    """Twice the long half-axis of the largest ellipse: further away no site matters."""


def site_grid(sites: FloatArray, *, bucket_um: float) -> SiteGrid:
    """Sort sites into buckets.

    Parameters
    ----------
    sites : ndarray of float32, shape (n, 9)
        n may be 0.
    bucket_um : float
        Side of a bucket; about the distance of neighbours is fast.

    Returns
    -------
    SiteGrid
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
    """List the sites that can be one of the two nearest anywhere within a disc.

    `slack` is the radius of the disc around (x, y). Their places go to `found`, their number is
    returned.
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
