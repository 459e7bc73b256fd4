"""The tissue around the glomeruli: tubules, vessels, nuclei, the core's edge.

Lengths in µm of the scene; `glomerulab.phantom.cortex_paint` paints it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.phantom.primitives import (
    MAX_GATHERED,
    N_SITE_COLUMNS,
    FloatArray,
    SiteGrid,
    far_apart,
    gather,
    noise_at,
    noise_bank,
    nuclei_table,
    site_grid,
    spread_out,
    two_nearest,
)
from glomerulab.phantom.zones import NO_ZONES, Zones, zones_at
from glomerulab.runtime.jit import compiled

PROXIMAL, DISTAL, ARTERIOLE, CAPILLARY, ATROPHIED = 0, 1, 2, 3, 4
"""Kinds of the sites of a cortex."""

BUCKET_UM = 40.0

# By kind: proximal, distal, arteriole, capillary, atrophied.
MIN_RADIUS_UM = np.array([16.0, 11.0, 9.0, 2.6, 7.5])
MAX_RADIUS_UM = np.array([23.0, 15.5, 15.0, 5.0, 13.5])
GROWTH = np.array([1.16, 1.12, 1.0, 1.1, 1.0])
"""Factor on the radius, so that tubules meet their neighbours."""
ROOM = np.array([0.86, 0.86, 0.86, 1.0, 1.38])
"""Factor on the radius that keeps sites apart; atrophied tubules leave a wide interstitium."""
EPITHELIUM = np.array([0.64, 0.45, 0.5, 0.22, 0.55])
"""Height of the epithelium over the radius."""
ATROPHY_IN_SCAR = 0.88
"""Share of the tubules of a scar that are atrophied."""

Discs = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Cortex:
    """Tubules, vessels and nuclei between the glomeruli."""

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
    open_lumen: float = 0.0,
    zones: Zones = NO_ZONES,
) -> Cortex:
    """Fill a rectangle with tubules around the glomeruli.

    Parameters
    ----------
    box_um : tuple of float
        Left, upper, right, lower edge.
    holes : ndarray of float, shape (n, 2 + k)
        Outlines (x, y, k radii by direction from +x towards +y) that stay free; k = 1 is a disc.
    poles : sequence of (x, y)
        Vascular poles of the glomeruli; each gets an arteriole.
    tubule_scale : float, default 1.0
        Factor on the calibre of the tubules.
    arterioles : float, default 0.03
        Share of the sites that are arterioles.
    open_lumen : float, default 0.0
        How much wider than in a collapsed tubule the lumen stands open, 0 to 1.
    zones : Zones, optional
        Scars, with atrophied tubules far apart, and the medulla, with straight parallel ones.
    """
    sites = _tubules(box_um, holes, poles, rng, (tubule_scale, arterioles, zones))
    if open_lumen > 0:
        tubules = np.isin(sites[:, 6], (PROXIMAL, DISTAL))
        sites[tubules, 7] *= 1.0 - open_lumen * rng.uniform(0.0, 0.6, int(tubules.sum()))
    grid = site_grid(sites, bucket_um=BUCKET_UM)
    nuclei = np.concatenate([_epithelial_nuclei(grid, rng), _stromal_nuclei(grid, box_um, rng)])
    nuclei = nuclei[spread_out(nuclei, n_first=0)]
    clear = _outside(nuclei[:, 0], nuclei[:, 1], holes, 1.0)
    return Cortex(grid, np.ascontiguousarray(nuclei[clear]))


def _outside(xs: Discs, ys: Discs, holes: Discs, margin: float) -> npt.NDArray[np.bool_]:
    clear = np.ones(len(xs), np.bool_)
    for hole in holes:
        clear &= _beyond(xs, ys, hole, margin)
    return clear


def _beyond(xs: Discs, ys: Discs, hole: Discs, margin: float | Discs) -> npt.NDArray[np.bool_]:
    """Return which places lie outside one hole by more than a margin."""
    dx, dy = xs - hole[0], ys - hole[1]
    away = np.hypot(dx, dy)
    if hole.size == 3:
        return np.asarray(away > hole[2] + margin)
    margins = np.broadcast_to(margin, away.shape)
    clear = np.asarray(away > hole[2:].max() + margins)
    near = np.flatnonzero(~clear)
    turns = np.arctan2(dy[near], dx[near])
    angles = np.arange(hole.size - 2) * (2 * math.pi / (hole.size - 2))
    radii = np.interp(turns, angles, hole[2:], period=2 * math.pi)
    clear[near] = away[near] > radii + margins[near]
    return clear


def _tubules(
    box_um: tuple[float, float, float, float],
    holes: Discs,
    poles: Sequence[Point],
    rng: np.random.Generator,
    numbers: tuple[float, float, Zones],
) -> FloatArray:
    scale, arterioles, zones = numbers
    left, upper, right, lower = box_um
    n = int((right - left) * (lower - upper) / 45.0) + 50 + len(poles)
    xs, ys = rng.uniform(left, right, n), rng.uniform(upper, lower, n)
    shares = [0.70 - arterioles, 0.14, arterioles, 0.16]
    kinds = rng.choice([PROXIMAL, DISTAL, ARTERIOLE, CAPILLARY], n, p=shares)
    radii = rng.uniform(MIN_RADIUS_UM[kinds], MAX_RADIUS_UM[kinds]) * scale
    scarred, in_medulla = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    if zones is not NO_ZONES:
        scarred, in_medulla = _zone_kinds(xs, ys, kinds, zones, rng)
        changed = scarred | in_medulla
        drawn = rng.uniform(MIN_RADIUS_UM[kinds], MAX_RADIUS_UM[kinds]) * scale
        radii = np.where(changed, drawn, radii)
    clear = np.ones(n, np.bool_)
    for hole in holes:
        clear &= _beyond(xs, ys, hole, 0.66 * radii)
    for item, (x, y) in enumerate(poles):
        xs[item], ys[item], kinds[item], clear[item] = x, y, ARTERIOLE, True
        radii[item] = rng.uniform(MIN_RADIUS_UM[ARTERIOLE], MAX_RADIUS_UM[ARTERIOLE])
    # Poles and tubules first, capillaries into the gaps that are left.
    order = np.flatnonzero(clear)
    order = order[np.argsort(kinds[order] == CAPILLARY, kind="stable")]
    room = radii[order] * ROOM[kinds[order]] * np.where(scarred[order], 1.12, 1.0)
    kept = order[far_apart(xs[order], ys[order], room, 2 * float(MAX_RADIUS_UM.max()) * scale)]
    kind = kinds[kept]
    turn = rng.uniform(0, math.pi, kept.size)
    drawn_out = 1.0 + rng.gamma(1.5, 0.34, kept.size).clip(0, 1.5)
    table = np.zeros((kept.size, N_SITE_COLUMNS), np.float32)
    table[:, 0], table[:, 1] = xs[kept], ys[kept]
    table[:, 2] = radii[kept] * GROWTH[kind]
    if zones.side:  # tubules of the medulla run along the core
        turn = np.where(in_medulla[kept], rng.normal(0, 0.16, kept.size), turn)
        drawn_out = np.where(in_medulla[kept], rng.uniform(1.8, 2.5, kept.size), drawn_out)
    table[:, 3], table[:, 4] = np.cos(turn), np.sin(turn)
    table[:, 5] = np.where(kind == ARTERIOLE, 1.08, drawn_out)
    table[kind == ATROPHIED, 5] = 1.0 + 0.35 * (drawn_out[kind == ATROPHIED] - 1.0)
    table[:, 6] = kind
    table[:, 7] = table[:, 2] * EPITHELIUM[kind] * rng.uniform(0.8, 1.2, kept.size)
    table[:, 8] = rng.random(kept.size)
    return table


def _zone_kinds(
    xs: Discs,
    ys: Discs,
    kinds: npt.NDArray[np.int64],
    zones: Zones,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Set the kinds of sites in scars and medulla, in place, and return which lie there."""
    scar, medulla = zones_at(zones, noise_bank(), xs, ys)
    in_medulla = medulla > 0
    scarred = (scar > 0) & ~in_medulla
    tubules = np.isin(kinds, (PROXIMAL, DISTAL))
    kinds[in_medulla & (tubules | (kinds == ARTERIOLE))] = DISTAL
    kinds[scarred & tubules & (rng.random(xs.size) < ATROPHY_IN_SCAR)] = ATROPHIED
    return scarred, in_medulla


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
    """Return the distance of places to the wall of their cell, negative inside."""
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
    spacing = np.array([11.5, 8.5, 9.0, 12.0, 8.0])[kinds]
    counts = np.maximum(np.rint(girth / spacing), 1).astype(np.int64)
    items = np.repeat(np.arange(len(sites)), counts)
    ring = np.arange(items.size) - np.repeat(np.cumsum(counts) - counts, counts)
    turns = 2 * math.pi * ring / counts[items] + rng.normal(0, 0.16, items.size)
    kind = kinds[items]
    depth = np.array([0.46, 0.5, 0.5, 0.5, 0.72])[kind] * sites[items, 7]
    depth = depth * rng.uniform(0.75, 1.2, items.size)
    places = _ring_places(grid, items, turns, depth.clip(1.2, None))
    share = np.array([0.7, 0.9, 0.8, 0.5, 0.85])[kind]
    is_kept = (places[:, 2] > 0) & (rng.random(items.size) < share)
    parts = []
    for wanted, axes, tangential in (
        (PROXIMAL, (3.2, 2.9), False),
        (DISTAL, (3.0, 2.6), False),
        (ARTERIOLE, (4.6, 1.3), True),
        (CAPILLARY, (3.4, 1.2), True),
        (ATROPHIED, (2.8, 2.2), False),
    ):
        chosen = is_kept & (kind == wanted)
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


@compiled
def distance_to_core(cores: FloatArray, bank: FloatArray, x: float, y: float) -> float:
    """Return the distance of a place to the tissue, negative inside; cores are thick segments."""
    nearest = 1e9
    for item in range(cores.shape[0]):
        x0, y0, x1, y1, half_width = cores[item]
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
        along = min(max(along, 0.0), 1.0)
        away_x, away_y = x - x0 - along * dx, y - y0 - along * dy
        nearest = min(nearest, math.sqrt(away_x * away_x + away_y * away_y) - half_width)
    if -50.0 < nearest < 50.0:
        nearest += 9.0 * noise_at(bank, x * 0.011, y * 0.011)
        nearest += 2.5 * noise_at(bank, x * 0.08, y * 0.08) + noise_at(bank, x * 0.4, y * 0.4)
    return nearest
