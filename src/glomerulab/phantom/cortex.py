"""The tissue around the glomeruli: tubules, interstitium, capillaries, arterioles, the core's edge.

Lengths in µm of the scene. Nothing is painted here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.phantom.nuclei import nuclei_table, spread_out
from glomerulab.phantom.sites import (
    MAX_GATHERED,
    N_SITE_COLUMNS,
    SiteGrid,
    far_apart,
    gather,
    site_grid,
    two_nearest,
)
from glomerulab.phantom.texture import FloatArray
from glomerulab.runtime.jit import compiled

__all__ = ["ARTERIOLE", "CAPILLARY", "DISTAL", "PROXIMAL", "Cortex", "draw_cortex"]

PROXIMAL, DISTAL, ARTERIOLE, CAPILLARY = 0, 1, 2, 3
"""Kinds of the sites of a cortex."""

BUCKET_UM = 40.0

# By kind: proximal, distal, arteriole, capillary.
LEAST_UM = np.array([16.0, 11.0, 9.0, 2.6])
MOST_UM = np.array([23.0, 15.5, 15.0, 5.0])
GROWTH = np.array([1.16, 1.12, 1.0, 1.1])
"""Tubules grow until they meet their neighbours."""
EPITHELIUM = np.array([0.64, 0.45, 0.5, 0.22])
"""Height over radius."""

Discs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Cortex:
    """What there is to paint between the glomeruli."""

    sites: SiteGrid
    nuclei: FloatArray


def draw_cortex(
    box_um: tuple[float, float, float, float],
    holes: Discs,
    rng: np.random.Generator,
    *,
    poles: Sequence[Point] = (),
    tubule_scale: float = 1.0,
    arterioles: float = 0.03,
) -> Cortex:
    """Fill a rectangle with tubules around the places kept for glomeruli.

    Parameters
    ----------
    box_um : tuple of float
        Left, upper, right, lower edge.
    holes : ndarray of float, shape (n, 3)
        Discs (x, y, radius) that stay free.
    rng : Generator
    poles : sequence of (x, y)
        Where an arteriole must be: the vascular poles of the glomeruli.
    tubule_scale : float, default 1.0
        Factor on the calibre of the tubules.
    arterioles : float, default 0.03
        Share of the sites that are arterioles.

    Returns
    -------
    Cortex
    """
    sites = _tubules(box_um, holes, poles, rng, (tubule_scale, arterioles))
    grid = site_grid(sites, bucket_um=BUCKET_UM)
    nuclei = np.concatenate([_epithelial_nuclei(grid, rng), _stromal_nuclei(grid, box_um, rng)])
    nuclei = nuclei[spread_out(nuclei, n_first=0)]
    clear = _outside(nuclei[:, 0], nuclei[:, 1], holes, 1.0)
    return Cortex(grid, np.ascontiguousarray(nuclei[clear]))


def _outside(xs: Discs, ys: Discs, holes: Discs, margin: float) -> npt.NDArray[np.bool_]:
    clear = np.ones(len(xs), np.bool_)
    for x, y, radius in holes:
        clear &= np.hypot(xs - x, ys - y) > radius + margin
    return clear


def _tubules(
    box_um: tuple[float, float, float, float],
    holes: Discs,
    poles: Sequence[Point],
    rng: np.random.Generator,
    numbers: tuple[float, float],
) -> FloatArray:
    scale, arterioles = numbers
    left, upper, right, lower = box_um
    n = int((right - left) * (lower - upper) / 45.0) + 50 + len(poles)
    xs, ys = rng.uniform(left, right, n), rng.uniform(upper, lower, n)
    shares = [0.70 - arterioles, 0.14, arterioles, 0.16]
    kinds = rng.choice([PROXIMAL, DISTAL, ARTERIOLE, CAPILLARY], n, p=shares)
    radii = rng.uniform(LEAST_UM[kinds], MOST_UM[kinds]) * scale
    clear = np.ones(n, np.bool_)
    for x, y, radius in holes:
        clear &= np.hypot(xs - x, ys - y) > radius + 0.66 * radii
    for item, (x, y) in enumerate(poles):
        xs[item], ys[item], kinds[item], clear[item] = x, y, ARTERIOLE, True
        radii[item] = rng.uniform(LEAST_UM[ARTERIOLE], MOST_UM[ARTERIOLE])
    # Poles and tubules first, capillaries into the gaps that are left.
    order = np.flatnonzero(clear)
    order = order[np.argsort(kinds[order] == CAPILLARY, kind="stable")]
    room = radii[order] * np.where(kinds[order] == CAPILLARY, 1.0, 0.86)
    kept = order[far_apart(xs[order], ys[order], room, 2 * float(MOST_UM.max()) * scale)]
    kind = kinds[kept]
    turn = rng.uniform(0, math.pi, kept.size)
    drawn_out = 1.0 + rng.gamma(1.5, 0.34, kept.size).clip(0, 1.5)
    table = np.zeros((kept.size, N_SITE_COLUMNS), np.float32)
    table[:, 0], table[:, 1] = xs[kept], ys[kept]
    table[:, 2] = radii[kept] * GROWTH[kind]
    table[:, 3], table[:, 4] = np.cos(turn), np.sin(turn)
    table[:, 5] = np.where(kind == ARTERIOLE, 1.08, drawn_out)
    table[:, 6] = kind
    table[:, 7] = table[:, 2] * EPITHELIUM[kind] * rng.uniform(0.8, 1.2, kept.size)
    table[:, 8] = rng.random(kept.size)
    return table


@compiled
def _walk_out(
    grid: SiteGrid, item: int, turn: float, inset: float, found: npt.NDArray[np.int32]
) -> tuple[float, float, bool]:
    """Go from a site's centre towards its wall and stop `inset` µm before it."""
    site = grid.sites[item]
    x, y = site[0], site[1]
    cos, sin = math.cos(turn), math.sin(turn)
    n = gather(grid, x, y, site[2] * site[5], found)
    for _ in range(120):
        nearest, first, second = two_nearest(grid.sites, found, n, x, y)
        if nearest != item:
            return x, y, False
        if max(first, 0.5 * (first - second)) > -inset:
            return x, y, True
        x += cos * 0.6
        y += sin * 0.6
    return x, y, False


@compiled
def _ring_places(
    grid: SiteGrid, items: npt.NDArray[np.int64], turns: Discs, insets: Discs
) -> Discs:
    """Return (x, y, 1 if found) for nuclei of given sites, directions and depths."""
    places = np.zeros((items.size, 3))
    found = np.empty(MAX_GATHERED, np.int32)
    for n in range(items.size):
        x, y, reached = _walk_out(grid, items[n], turns[n], insets[n], found)
        places[n, 0], places[n, 1], places[n, 2] = x, y, 1.0 if reached else 0.0
    return places


@compiled
def _distance_to_wall(grid: SiteGrid, xs: Discs, ys: Discs) -> Discs:
    """Return how far places are from the wall of their cell, negative inside."""
    distances = np.zeros(xs.size)
    found = np.empty(MAX_GATHERED, np.int32)
    for n in range(xs.size):
        n_found = gather(grid, xs[n], ys[n], 0.0, found)
        _, first, second = two_nearest(grid.sites, found, n_found, xs[n], ys[n])
        distances[n] = max(first, 0.5 * (first - second) + 0.7)
    return distances


def _epithelial_nuclei(grid: SiteGrid, rng: np.random.Generator) -> FloatArray:
    sites = grid.sites
    kinds = sites[:, 6].astype(np.int64)
    girth = 2 * math.pi * sites[:, 2] * np.sqrt(sites[:, 5])
    spacing = np.array([11.5, 8.5, 9.0, 12.0])[kinds]
    counts = np.maximum(np.rint(girth / spacing), 1).astype(np.int64)
    items = np.repeat(np.arange(len(sites)), counts)
    ring = np.arange(items.size) - np.repeat(np.cumsum(counts) - counts, counts)
    turns = 2 * math.pi * ring / counts[items] + rng.normal(0, 0.16, items.size)
    kind = kinds[items]
    depth = np.array([0.46, 0.5, 0.5, 0.5])[kind] * sites[items, 7]
    depth = depth * rng.uniform(0.75, 1.2, items.size)
    places = _ring_places(grid, items, turns, depth.clip(1.2, None))
    shown = (places[:, 2] > 0) & (rng.random(items.size) < np.array([0.7, 0.9, 0.8, 0.5])[kind])
    parts = []
    for wanted, axes, tangential in (
        (PROXIMAL, (3.2, 2.9), False),
        (DISTAL, (3.0, 2.6), False),
        (ARTERIOLE, (4.6, 1.3), True),
        (CAPILLARY, (3.4, 1.2), True),
    ):
        chosen = shown & (kind == wanted)
        lean = turns[chosen] + math.pi / 2 if tangential else rng.uniform(0, 6.28, chosen.sum())
        parts.append(nuclei_table(places[chosen, :2], half_axes_um=axes, angles=lean, rng=rng))
    return np.concatenate(parts)


def _stromal_nuclei(
    grid: SiteGrid, box_um: tuple[float, float, float, float], rng: np.random.Generator
) -> FloatArray:
    left, upper, right, lower = box_um
    n = int((right - left) * (lower - upper) / 150.0)
    xs, ys = rng.uniform(left, right, n), rng.uniform(upper, lower, n)
    between = _distance_to_wall(grid, xs, ys) > 0.6
    places = np.stack([xs[between], ys[between]], axis=1)
    angles = rng.uniform(0, math.pi, len(places))
    return nuclei_table(places, half_axes_um=(3.6, 1.5), angles=angles, rng=rng)
