"""One glomerulus: its lesions, its form and its structures.

Works in coordinates of the glomerulus: origin at the centre, lengths in µm, y down.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glomerulab.geometry import Point
from glomerulab.phantom.glomerulus_paint import LOOP, MESANGIAL, SCARRED, GlomerulusShape
from glomerulab.phantom.primitives import (
    N_SITE_COLUMNS,
    FloatArray,
    SiteGrid,
    far_apart,
    nuclei_table,
    site_grid,
    spread_out,
)

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


N_ANGLES = 256
"""Number of directions of an outline, from +x towards +y."""

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
    form: "GlomerulusForm"

    def moved(self, place_um: Point, *, is_cut: bool = False) -> "Glomerulus":
        """Return the glomerulus at another place, where the tissue's edge may cut it."""
        dx, dy = place_um[0] - self.x_um, place_um[1] - self.y_um
        nuclei = self.nuclei.copy()
        nuclei[:, 0] += dx
        nuclei[:, 1] += dy
        return replace(
            self,
            x_um=place_um[0],
            y_um=place_um[1],
            nuclei=nuclei,
            pole=None if self.pole is None else (self.pole[0] + dx, self.pole[1] + dy),
            form=replace(self.form, is_cut=is_cut),
        )

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
            sclerosed=self.form.sclerosed,
            fibrous=self.form.fibrous,
            is_cut=self.form.is_cut,
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


@dataclass(frozen=True, slots=True)
class GlomerulusForm:
    """What makes one section of a glomerulus differ from a round, open, middle one."""

    aspect: float = 1.0
    """Long over short axis."""
    turn: float = 0.0
    """Direction of the long axis, radians."""
    flat: float = 1.0
    """Distance of a flattened side from the centre, in radii; 1 flattens nothing."""
    waviness: float = 0.05
    """Irregularity of the capsule."""
    collapse: float = 0.0
    """How far the tuft has shrunk from the capsule, share of its radius."""
    fibrous: float = 0.0
    """Share of the crescent that is fibrous: 0 is cellular, 1 is old."""
    sclerosed: bool = False
    """Whether the whole glomerulus is a scar."""
    is_cut: bool = False
    """Whether the edge of the tissue cuts it."""

    def outline(self) -> npt.NDArray[np.float64] | float:
        """Return the factor on the radius by direction."""
        factor: npt.NDArray[np.float64] | float = 1.0
        away = ANGLES - self.turn
        if self.aspect != 1.0:
            along, across = np.cos(away) ** 2 / self.aspect, np.sin(away) ** 2 * self.aspect
            factor = 1.0 / np.sqrt(along + across)
        if self.flat < 1.0:
            # Soft at the corners: the smooth minimum of the outline and a straight line.
            line = self.flat / np.clip(np.cos(away - 2.0), 0.05, None)
            factor = (factor**-8.0 + line**-8.0) ** (-1 / 8)
        return factor


PLAIN = GlomerulusForm()


def draw_form(lesions: Lesions, rng: np.random.Generator) -> GlomerulusForm:
    """Draw the form of a glomerulus with given lesions."""
    collapse = float(rng.uniform(0.1, 0.4)) if rng.random() < 0.2 else 0.0
    stage = rng.choice([0.0, rng.uniform(0.3, 0.7), 1.0], p=[0.5, 0.3, 0.2])
    return GlomerulusForm(
        aspect=1.0 + min(float(rng.gamma(1.6, 0.12)), 0.7),
        turn=float(rng.uniform(0, 2 * math.pi)),
        flat=float(rng.uniform(0.6, 0.9)) if rng.random() < 0.25 else 1.0,
        waviness=float(rng.uniform(0.03, 0.1)),
        collapse=0.0 if lesions.fsg > 0 or lesions.cgn > 0 else collapse,
        fibrous=float(stage) if lesions.cgn > 0 else 0.0,
    )


def draw_sclerosed(rng: np.random.Generator, *, radius_um: float) -> Glomerulus:
    """Draw a globally sclerosed glomerulus: a small scar, solid or in a ring of collagen."""
    solid = bool(rng.random() < 0.45)
    form = GlomerulusForm(
        aspect=1.0 + min(float(rng.gamma(1.6, 0.15)), 0.8),
        turn=float(rng.uniform(0, 2 * math.pi)),
        waviness=float(rng.uniform(0.05, 0.12)),
        collapse=0.0 if solid else float(rng.uniform(0.1, 0.45)),
        sclerosed=True,
    )
    return draw_glomerulus(Lesions(), rng, radius_um=radius_um, form=form)


def draw_glomerulus(
    lesions: Lesions,
    rng: np.random.Generator,
    *,
    place_um: Point = (0.0, 0.0),
    radius_um: float = 85.0,
    form: GlomerulusForm = PLAIN,
) -> Glomerulus:
    """Draw a glomerulus."""
    capsule = radius_um * _wavy(rng, form.waviness, (2, 3, 4, 5)) * form.outline()
    membrane = float(rng.uniform(1.2, 2.2))
    crescent = _crescent(capsule - membrane, lesions.cgn, rng)
    pole = float(rng.uniform(0, 2 * math.pi)) if rng.random() < POLE_SHARE else None
    tuft_um = _tuft_edge(capsule - membrane, crescent, pole, rng) * (1.0 - form.collapse)
    segment = _segment(tuft_um, crescent, lesions, rng)
    if form.sclerosed:
        segment = (0.0, 0.0, 1.4 * float((capsule if form.collapse == 0 else 0.6 * tuft_um).max()))
    mesangial, cells, mesangial_nuclei = _mesangium(tuft_um, segment, lesions.mspgn, rng)
    loops = _loops(tuft_um, mesangial, rng)
    sites = np.concatenate([mesangial, loops])
    scarred = np.hypot(sites[:, 0] - segment[0], sites[:, 1] - segment[1]) < segment[2]
    sites[scarred | form.sclerosed, 6] = SCARRED
    parts = [
        mesangial_nuclei,
        _loop_nuclei(loops, segment, rng),
        _parietal_nuclei(capsule, crescent, membrane, rng),
        _crescent_nuclei(capsule - membrane, crescent, rng),
        _segment_nuclei(segment, capsule, rng),
    ]
    if form.sclerosed:  # the loops' cells are gone, and most of the capsule's
        parts = [parts[0][:0], parts[2][rng.random(len(parts[2])) < 0.3], parts[4]]
    if form.fibrous > 0:
        parts[3] = parts[3][rng.random(len(parts[3])) > 0.85 * form.fibrous]
    nuclei = np.concatenate(parts)
    nuclei = nuclei[spread_out(nuclei, n_first=len(parts[0]))]
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
        form=form,
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
