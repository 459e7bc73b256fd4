"""One glomerulus: its lesions, its structures and their painting.

Drawing works in coordinates of the glomerulus: origin at the centre, lengths in µm, y down.
Painting is compiled and works block by block.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.phantom.primitives import (
    MAX_GATHERED,
    N_SITE_COLUMNS,
    Canvas,
    FloatArray,
    Ink,
    Paint,
    SiteGrid,
    cover,
    far_apart,
    gather,
    lay,
    noise_at,
    nuclei_table,
    pixel_span,
    put,
    site_grid,
    spread_out,
    two_nearest,
)
from glomerulab.runtime.jit import compiled

__all__ = ["KINDS", "Lesions"]

KINDS: dict[str, tuple[str, ...]] = {
    "normal": ("normal",),
    "mspgn": ("mspgn",),
    "fsg": ("fsg",),
    "cgn": ("cgn",),
    "fsg+cgn": ("fsg", "cgn"),
}
"""Kinds of glomerulus that can be rendered, and the labels of each."""

# Out of 20 glomeruli: the combination is rarer, as it is in biopsies.
MIX = {"normal": 6, "mspgn": 4, "fsg": 4, "cgn": 4, "fsg+cgn": 2}

MAX_SEVERITY = 1.0


@dataclass(frozen=True, slots=True)
class Lesions:
    """Severity of each lesion: 0 is absent, near 0 just meets the definition, 1 is marked."""

    mspgn: float = 0.0
    fsg: float = 0.0
    cgn: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a severity outside 0 to 1."""
        for name in ("mspgn", "fsg", "cgn"):
            severity = getattr(self, name)
            if not 0.0 <= severity <= MAX_SEVERITY:
                raise ValueError(f"severity of {name} must be from 0 to 1, got {severity}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Ids of the labels of the taxonomy ``paper``, in its order."""
        present = tuple(name for name in ("mspgn", "fsg", "cgn") if getattr(self, name) > 0)
        return present or ("normal",)


def draw_lesions(kind: str, rng: np.random.Generator) -> Lesions:
    """Draw the severities of the lesions of a kind."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    severities = {name: float(rng.uniform(0.1, MAX_SEVERITY)) for name in ("mspgn", "fsg", "cgn")}
    return Lesions(**{name: s for name, s in severities.items() if name in KINDS[kind]})


def kind_schedule(n: int, rng: np.random.Generator) -> list[str]:
    """Return the kinds of n glomeruli, in random order and fixed proportions."""
    block = [kind for kind, count in MIX.items() for _ in range(count)]
    kinds: list[str] = []
    while len(kinds) < n:
        kinds += [block[place] for place in rng.permutation(len(block))]
    return kinds[:n]


MSPGN_BIT, FSG_BIT, CGN_BIT = 1, 2, 4
"""Bits of a lesion map."""

# Codes of `Material`; the compiler takes no enum.
BLOOD, CAPSULE, SPACE, TUFT_CELL, LOOP_WALL, LOOP_LUMEN, MESANGIUM = 9, 10, 11, 12, 13, 14, 15
SCLEROSIS, HYALINE, CRESCENT = 16, 17, 18

BLOCK_PX, BLOCK_UM = 8, 8.0
"""Maximal side of a block, within which few sites matter."""
WARP_UM = 0.9
WARP_REACH_UM = 5.0


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


N_ANGLES = 256
"""Number of directions of an outline, from +x towards +y."""

LOOP, MESANGIAL, SCARRED = 0, 1, 2
"""Kinds of the sites of a tuft."""

ANGLES = np.arange(N_ANGLES) * (2 * math.pi / N_ANGLES)
MIN_CRESCENT_SHARE = 0.10
"""Minimal share of Bowman's circumference of a crescent (ISN/RPS 2018)."""
POLE_SHARE = 0.5
"""Share of sections through the vascular pole."""
MIN_MESANGIAL_CELLS = 4
"""Minimal number of cells of a hypercellular mesangial area (Oxford)."""

LOOP_INSET_UM = 4.0
BUCKET_UM = 10.0

Radii = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Glomerulus:
    """Structures of one glomerulus and the truth about it."""

    x_um: float
    y_um: float
    capsule_um: FloatArray
    """Outer radius of Bowman's capsule by direction, shape (256,)."""
    crescent_um: FloatArray
    """Inner radius of the crescent by direction; the capsule's where there is none."""
    segment: tuple[float, float, float]
    """Centre and radius of the sclerosed segment; radius 0 without one."""
    tuft: SiteGrid
    nuclei: FloatArray
    mesangial_cells: tuple[int, ...]
    """Number of mesangial nuclei in each mesangial area."""
    pole: Point | None
    """Where the arteriole enters, in µm of the scene; None if the section misses it."""
    membrane_um: float
    """Thickness of Bowman's capsule."""
    lesions: Lesions

    def shape(self) -> GlomerulusShape:
        """Return the geometry for the painter."""
        return GlomerulusShape(
            x_um=self.x_um,
            y_um=self.y_um,
            reach_um=self.reach_um,
            capsule_um=self.capsule_um,
            crescent_um=self.crescent_um,
            membrane_um=self.membrane_um,
            segment=self.segment,
            diseased=self.lesions.mspgn > 0,
            tuft=self.tuft,
        )

    @property
    def reach_um(self) -> float:
        """Radius of a disc that holds all of it."""
        return float(self.capsule_um.max()) + 4.0

    @property
    def crescent_share(self) -> float:
        """Share of Bowman's circumference that the crescent covers, 0 to 1."""
        return float(np.mean(self.capsule_um - self.crescent_um > 3.0))

    def outline(self, n_points: int = 64) -> tuple[Point, ...]:
        """Return Bowman's capsule as a polygon in µm of the scene."""
        picked = np.arange(n_points) * (N_ANGLES // n_points)
        radii, angles = self.capsule_um[picked], ANGLES[picked]
        xs, ys = self.x_um + radii * np.cos(angles), self.y_um + radii * np.sin(angles)
        return tuple(zip(xs.tolist(), ys.tolist(), strict=True))


def draw_glomerulus(
    lesions: Lesions,
    rng: np.random.Generator,
    *,
    place_um: Point = (0.0, 0.0),
    radius_um: float = 85.0,
) -> Glomerulus:
    """Draw a glomerulus."""
    capsule = radius_um * _wavy(rng, 0.05, (2, 3, 4, 5))
    membrane = float(rng.uniform(1.2, 2.2))
    crescent = _crescent(capsule - membrane, lesions.cgn, rng)
    pole = float(rng.uniform(0, 2 * math.pi)) if rng.random() < POLE_SHARE else None
    tuft_um = _tuft_edge(capsule - membrane, crescent, pole, rng)
    segment = _segment(tuft_um, crescent, lesions, rng)
    mesangial, cells, mesangial_nuclei = _mesangium(tuft_um, segment, lesions.mspgn, rng)
    loops = _loops(tuft_um, mesangial, rng)
    sites = np.concatenate([mesangial, loops])
    sites[np.hypot(sites[:, 0] - segment[0], sites[:, 1] - segment[1]) < segment[2], 6] = SCARRED
    parts = [
        mesangial_nuclei,
        _loop_nuclei(loops, segment, rng),
        _parietal_nuclei(capsule, crescent, membrane, rng),
        _crescent_nuclei(capsule - membrane, crescent, rng),
        _segment_nuclei(segment, capsule, rng),
    ]
    nuclei = np.concatenate(parts)
    nuclei = nuclei[spread_out(nuclei, n_first=len(mesangial_nuclei))]
    nuclei[:, 0] += place_um[0]
    nuclei[:, 1] += place_um[1]
    return Glomerulus(
        x_um=place_um[0],
        y_um=place_um[1],
        capsule_um=capsule.astype(np.float32),
        crescent_um=np.where(crescent < capsule - membrane - 0.5, crescent, capsule).astype(
            np.float32
        ),
        segment=segment,
        tuft=site_grid(sites, bucket_um=BUCKET_UM),
        nuclei=nuclei,
        mesangial_cells=cells,
        pole=None if pole is None else _beyond(capsule, pole, place_um),
        membrane_um=membrane,
        lesions=lesions,
    )


def _beyond(capsule: Radii, angle: float, place_um: Point) -> Point:
    """Return a point just outside the capsule."""
    radius = float(np.interp(angle, ANGLES, capsule)) + 7.0
    return place_um[0] + radius * math.cos(angle), place_um[1] + radius * math.sin(angle)


def _tuft_edge(
    inner: Radii, crescent: Radii, pole: float | None, rng: np.random.Generator
) -> Radii:
    """Leave Bowman's space, cut clefts between lobules, and close in on the vascular pole."""
    mean = float(inner.mean())
    space = np.maximum(rng.uniform(0.04, 0.11) * mean * _wavy(rng, 0.35, (1, 2, 3)), 2.5)
    for _ in range(int(rng.integers(3, 8))):
        width = rng.uniform(0.04, 0.09)
        cleft = np.exp(-((_angular_distance(float(rng.uniform(0, 2 * math.pi))) / width) ** 2))
        space = space + rng.uniform(0.05, 0.40) * mean * cleft
    if pole is not None:
        space = space * (1.0 - np.exp(-((_angular_distance(pole) / 0.22) ** 2)))
    return np.minimum(inner - space, crescent - 2.0)


def _wavy(rng: np.random.Generator, strength: float, orders: tuple[int, ...]) -> Radii:
    """Return a smooth closed factor around 1."""
    waves = [
        rng.normal(0.0, strength * 2 / (1 + order))
        * np.cos(order * ANGLES + rng.uniform(0, 2 * math.pi))
        for order in orders
    ]
    return np.asarray(np.clip(1.0 + np.sum(waves, axis=0), 0.4, 1.8))


def _angular_distance(centre: float) -> Radii:
    """Return the angular distance of every direction from one, 0 to pi."""
    away: Radii = np.abs((ANGLES - centre + math.pi) % (2 * math.pi) - math.pi)
    return away


def _crescent(inner: Radii, severity: float, rng: np.random.Generator) -> Radii:
    """Return the inner edge of the crescent: thick in the middle, tapering at both horns."""
    share = MIN_CRESCENT_SHARE + 0.10 + 0.55 * severity * rng.uniform(0.7, 1.0)
    thickness = (0.14 + 0.22 * severity) * float(inner.mean()) * rng.uniform(0.85, 1.15)
    away = _angular_distance(float(rng.uniform(0, 2 * math.pi))) / (math.pi * share)
    profile = np.clip(1.0 - away**2.5, 0.0, None) ** 0.6 * _wavy(rng, 0.06, (3, 5, 7))
    return inner - thickness * profile if severity > 0 else inner


def _segment(
    tuft: Radii, crescent: Radii, lesions: Lesions, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Choose a disc at the tuft's edge to be sclerosed, away from the crescent's middle."""
    thickness = tuft.max() - crescent
    away_from_crescent = thickness + rng.uniform(0, 4.0)
    angle = ANGLES[int(np.argmin(away_from_crescent))] if lesions.cgn > 0 else rng.uniform(0, 6.28)
    if lesions.fsg == 0:
        return (0.0, 0.0, 0.0)
    at_edge = float(np.interp(angle, ANGLES, tuft, period=2 * math.pi))
    radius = (0.26 + 0.26 * lesions.fsg) * float(tuft.mean()) * rng.uniform(0.92, 1.08)
    distance = at_edge - 0.55 * radius
    return (distance * math.cos(angle), distance * math.sin(angle), radius)


def _scatter(
    edge: Radii, inset: float, radii: tuple[float, float], n: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Radii]:
    """Draw candidate discs inside an outline: x, y, radius, each shape (m,)."""
    reach = float(edge.max())
    xs, ys = rng.uniform(-reach, reach, n), rng.uniform(-reach, reach, n)
    sizes = rng.uniform(radii[0], radii[1], n)
    limit = np.interp(np.arctan2(ys, xs), ANGLES, edge, period=2 * math.pi) - inset
    inside = np.hypot(xs, ys) < limit
    return xs[inside], ys[inside], sizes[inside]


def _sites(xs: Radii, ys: Radii, radii: Radii, kind: int, rng: np.random.Generator) -> FloatArray:
    """Make sites of random direction and elongation."""
    table = np.zeros((xs.size, N_SITE_COLUMNS), np.float32)
    turn = rng.uniform(0, math.pi, xs.size)
    table[:, 0], table[:, 1], table[:, 2] = xs, ys, radii
    table[:, 3], table[:, 4] = np.cos(turn), np.sin(turn)
    table[:, 5] = rng.uniform(1.0, 1.8, xs.size)
    table[:, 6] = kind
    table[:, 8] = rng.random(xs.size)
    return table


def _mesangium(
    tuft: Radii, segment: tuple[float, float, float], severity: float, rng: np.random.Generator
) -> tuple[FloatArray, tuple[int, ...], FloatArray]:
    """Place mesangial areas, and in each its cells."""
    xs, ys, spacing = _scatter(tuft, 9.0, (9.0, 12.5), 900, rng)
    keep = far_apart(xs, ys, spacing, 24.0)
    keep &= np.hypot(xs - segment[0], ys - segment[1]) > segment[2] + 2.0
    xs, ys = xs[keep], ys[keep]
    radii = rng.uniform(2.4, 3.8, xs.size) * (1.0 + 0.35 * (severity > 0) + 1.0 * severity)
    areas = _sites(xs, ys, radii, MESANGIAL, rng)
    few = rng.choice([1, 2, 3], xs.size, p=[0.4, 0.4, 0.2])
    if severity > 0:
        involved = rng.permutation(xs.size) < math.ceil((0.6 + 0.4 * severity) * xs.size)
        many = rng.integers(MIN_MESANGIAL_CELLS, 5 + round(4 * severity), xs.size)
        counts = np.where(involved, many, few)
    else:
        counts = few
    which = np.repeat(np.arange(xs.size), counts)
    turn = rng.uniform(0, 2 * math.pi, which.size)
    out = np.sqrt(rng.uniform(0.05, 1.0, which.size)) * (radii[which] + 1.2 * severity)
    places = np.stack([xs[which] + out * np.cos(turn), ys[which] + out * np.sin(turn)], axis=1)
    nuclei = nuclei_table(
        places, half_axes_um=(3.0, 2.3), angles=rng.uniform(0, math.pi, which.size), rng=rng
    )
    return areas, tuple(int(count) for count in counts), nuclei


def _loops(tuft: Radii, mesangial: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Fill the tuft with capillary loops around the mesangial areas."""
    xs, ys, radii = _scatter(tuft, LOOP_INSET_UM, (2.9, 5.4), 3600, rng)
    order = np.argsort(-radii, kind="stable")
    all_xs = np.concatenate([mesangial[:, 0], xs[order]])
    all_ys = np.concatenate([mesangial[:, 1], ys[order]])
    sizes = np.concatenate([mesangial[:, 2], radii[order]])
    kept = far_apart(all_xs, all_ys, sizes * 0.98, 24.0)[len(mesangial) :]
    xs, ys, radii = xs[order][kept], ys[order][kept], radii[order][kept]
    return _sites(xs, ys, radii * 1.10, LOOP, rng)


def _loop_nuclei(
    loops: FloatArray, segment: tuple[float, float, float], rng: np.random.Generator
) -> FloatArray:
    """Put endothelial and podocyte nuclei on the walls of some loops."""
    outside = np.hypot(loops[:, 0] - segment[0], loops[:, 1] - segment[1]) > segment[2]
    chosen = loops[outside & (rng.random(len(loops)) < 0.85)]
    turn = rng.uniform(0, 2 * math.pi, len(chosen))
    out = chosen[:, 2] * rng.uniform(0.8, 1.25, len(chosen))
    places = chosen[:, 0:2] + (out * np.stack([np.cos(turn), np.sin(turn)])).T
    return nuclei_table(places, half_axes_um=(3.3, 2.1), angles=turn + math.pi / 2, rng=rng)


def _parietal_nuclei(
    capsule: Radii, crescent: Radii, membrane: float, rng: np.random.Generator
) -> FloatArray:
    """Line the capsule with flat cells, except under a crescent."""
    n = round(2 * math.pi * float(capsule.mean()) / 17.0)
    turn = np.arange(n) * (2 * math.pi / n) + rng.uniform(-0.08, 0.08, n)
    radii = np.interp(turn, ANGLES, capsule, period=2 * math.pi) - membrane - 1.0
    inner = np.interp(turn, ANGLES, crescent, period=2 * math.pi)
    bare = (radii - inner < 1.5) & (rng.random(n) < 0.8)
    places = (radii * np.stack([np.cos(turn), np.sin(turn)])).T[bare]
    return nuclei_table(places, half_axes_um=(4.0, 1.2), angles=turn[bare] + math.pi / 2, rng=rng)


def _crescent_nuclei(inner: Radii, crescent: Radii, rng: np.random.Generator) -> FloatArray:
    """Crowd the crescent with cells."""
    xs, ys, radii = _scatter(inner, 2.2, (2.9, 3.9), 5000, rng)
    turn = np.arctan2(ys, xs)
    within = np.hypot(xs, ys) > np.interp(turn, ANGLES, crescent, period=2 * math.pi) + 1.2
    xs, ys, radii, turn = xs[within], ys[within], radii[within], turn[within]
    kept = far_apart(xs, ys, radii, 8.0)
    lean = turn[kept] + math.pi / 2 + rng.normal(0, 0.6, int(kept.sum()))
    places = np.stack([xs[kept], ys[kept]], axis=1)
    return nuclei_table(places, half_axes_um=(3.7, 2.3), angles=lean, rng=rng)


def _segment_nuclei(
    segment: tuple[float, float, float], capsule: Radii, rng: np.random.Generator
) -> FloatArray:
    """Leave a few shrunken nuclei in the scar."""
    n = round(segment[2] ** 2 / 130.0)
    turn = rng.uniform(0, 2 * math.pi, n)
    out = segment[2] * np.sqrt(rng.uniform(0.1, 0.9, n))
    xs, ys = segment[0] + out * np.cos(turn), segment[1] + out * np.sin(turn)
    inside = np.hypot(xs, ys) < np.interp(
        np.arctan2(ys, xs), ANGLES, capsule - 5.0, period=2 * math.pi
    )
    places = np.stack([xs[inside], ys[inside]], axis=1)
    return nuclei_table(
        places, half_axes_um=(3.0, 1.5), angles=rng.uniform(0, math.pi, len(places)), rng=rng
    )


@compiled
def paint_glomerulus(canvas: Canvas, shape: GlomerulusShape, ink: Ink) -> None:
    """Paint a glomerulus on a canvas, in place."""
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
                    _paint_pixel(canvas, (row, column), shape, ink, found[:n])


@compiled
def _paint_pixel(
    canvas: Canvas,
    pixel: tuple[int, int],
    shape: GlomerulusShape,
    ink: Ink,
    among: Places,
) -> None:
    row, column = pixel
    wx = canvas.left_um + (column + 0.5) * canvas.mpp
    wy = canvas.upper_um + (row + 0.5) * canvas.mpp
    x = wx - shape.x_um + WARP_UM * noise_at(ink.bank, wx * 0.12, wy * 0.12)
    y = wy - shape.y_um + WARP_UM * noise_at(ink.bank, wx * 0.12 + 91.0, wy * 0.12)
    radius = math.sqrt(x * x + y * y)
    outer, inner = _outlines(shape, x, y)
    depth = outer - radius
    inside = cover(-depth, canvas.mpp)
    if inside <= 0.0:
        return
    place = (wx, wy, canvas.mpp)
    now, lesion = _tuft(shape, ink, among, (x, y), place)
    if inner < outer - 0.1:
        strands = noise_at(ink.bank, wx * 0.22, wy * 0.22)
        strands += 0.5 * noise_at(ink.bank, wx * 0.8, wy * 0.8)
        share = cover(inner - radius + 1.1 * strands, canvas.mpp)
        now = lay(now, ink, CRESCENT, 1.0 + 0.25 * strands, share)
        lesion = CGN_BIT if share > 0.5 else lesion
    wall = cover(depth - shape.membrane_um, canvas.mpp)
    now = lay(now, ink, CAPSULE, 1.0, wall)
    put(canvas, row, column, now, inside)
    if inside > 0.5:
        canvas.lesion_bits[row, column] = 0 if wall > 0.5 else lesion


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
) -> tuple[Paint, int]:
    """Return the paint and lesion bit of the tuft, its scar, or Bowman's space at a place."""
    wx, wy, _ = place
    # The walls of single loops are less smooth than the outlines.
    x = at[0] + 1.2 * noise_at(ink.bank, wx * 0.22, wy * 0.22)
    y = at[1] + 1.2 * noise_at(ink.bank, wx * 0.22 + 17.0, wy * 0.22)
    nearest, first, second = two_nearest(shape.tuft.sites, among, among.size, x, y)
    now = lay((0.0, 0.0, SPACE), ink, SPACE, 1.0, 1.0)
    scarred = -1e9
    if nearest >= 0 and first < 4.0:
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
            return _scar(now, lesion, -reach, ink, place)
    return now, lesion


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
