"""Arteries: intima, muscular wall and adventitia around a lumen, drawn and painted."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from glomerulab.geometry import Point
from glomerulab.phantom.cortex import distance_to_core
from glomerulab.phantom.primitives import (
    ARTERY_BIT,
    CORTEX_BIT,
    MEDULLA_BIT,
    Canvas,
    FloatArray,
    Ink,
    cover,
    lay,
    noise_at,
    nuclei_table,
    pixel_span,
    put,
    spread_out,
)
from glomerulab.runtime.jit import compiled

# Codes of `Material`; the compiler takes no enum.
TUBULE_MEMBRANE, MUSCLE, VESSEL_LUMEN, BLOOD, FIBROSIS, INTIMA = 2, 7, 8, 9, 20, 23

MIN_RADIUS_UM, MAX_RADIUS_UM = 32.0, 68.0
"""Of an interlobular artery, to the outer edge of its muscle."""
ADVENTITIA_UM = 9.0
WARP_REACH_UM = 6.0


class ArteryShape(NamedTuple):
    """Geometry for the painter, in µm; `turn` (2) is the unit vector of the long axis."""

    x_um: float
    y_um: float
    radius_um: float
    """Short half-axis to the outer edge of the muscle."""
    elongation: float
    turn: tuple[float, float]
    muscle_um: float
    """Thickness of the media."""
    intima_um: float
    """Thickness of the intima; thick in old and hypertensive kidneys."""
    bloody: float
    """Share of the lumen that blood fills, 0 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Artery:
    """An artery and its nuclei."""

    shape: ArteryShape
    nuclei: FloatArray

    @property
    def reach_um(self) -> float:
        """Radius of a disc that holds all of it."""
        return self.shape.radius_um * self.shape.elongation + ADVENTITIA_UM + WARP_REACH_UM

    def moved(self, place_um: Point) -> "Artery":
        """Return the artery at another place."""
        nuclei = self.nuclei.copy()
        nuclei[:, 0] += place_um[0] - self.shape.x_um
        nuclei[:, 1] += place_um[1] - self.shape.y_um
        return replace(
            self, shape=self.shape._replace(x_um=place_um[0], y_um=place_um[1]), nuclei=nuclei
        )


def draw_artery(rng: np.random.Generator, *, scarred: float = 0.0) -> Artery:
    """Draw an artery at the origin.

    Parameters
    ----------
    scarred : float, default 0.0
        Share of the cortex that is scarred: the intima thickens with it.
    """
    radius = float(rng.uniform(MIN_RADIUS_UM, MAX_RADIUS_UM))
    angle = float(rng.uniform(0, math.pi))
    thick = float(rng.beta(1.2 + 3.0 * scarred, 3.0))
    shape = ArteryShape(
        x_um=0.0,
        y_um=0.0,
        radius_um=radius,
        elongation=1.0 + float(rng.gamma(1.4, 0.2)) % 0.9,
        turn=(math.cos(angle), math.sin(angle)),
        muscle_um=radius * float(rng.uniform(0.25, 0.42)),
        intima_um=1.5 + 0.4 * radius * thick,
        bloody=float(rng.choice([0.0, rng.uniform(0.2, 1.0)], p=[0.6, 0.4])),
    )
    return Artery(shape, _nuclei(shape, rng))


def _nuclei(shape: ArteryShape, rng: np.random.Generator) -> FloatArray:
    """Put spindles along the muscle, flat cells on the lumen, and few in the intima."""
    parts = []
    for first, last, per_um2, axes in (
        (0.0, shape.muscle_um, 1 / 110.0, (5.4, 1.3)),
        (shape.muscle_um + 1.0, shape.muscle_um + shape.intima_um - 1.0, 1 / 320.0, (3.8, 1.2)),
        (
            shape.muscle_um + shape.intima_um - 0.8,
            shape.muscle_um + shape.intima_um - 0.4,
            1 / 12.0,
            (3.6, 1.1),
        ),
    ):
        width = max(last - first, 0.0)
        radius = max(shape.radius_um - 0.5 * (first + last), 1.0)
        n = round(2 * math.pi * radius * shape.elongation * width * per_um2)
        depth = shape.radius_um - rng.uniform(first, last if width > 0 else first + 0.1, n)
        turns = rng.uniform(0, 2 * math.pi, n)
        along, across = depth * shape.elongation * np.cos(turns), depth * np.sin(turns)
        cos, sin = shape.turn
        places = np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)
        lean = np.arctan2(np.cos(turns), -shape.elongation * np.sin(turns)) + math.atan2(sin, cos)
        lean = lean + rng.normal(0, 0.15, n)
        parts.append(nuclei_table(places, half_axes_um=axes, angles=lean, rng=rng))
    nuclei = np.concatenate(parts)
    return nuclei[spread_out(nuclei, n_first=0)]


@compiled
def paint_artery(
    canvas: Canvas, shape: ArteryShape, ink: Ink, cores: FloatArray, number: int
) -> None:
    """Paint an artery on a canvas, in place; the part beyond the tissue stays glass."""
    height, width = canvas.structure.shape
    reach = shape.radius_um * shape.elongation + ADVENTITIA_UM + WARP_REACH_UM
    rows = pixel_span(shape.y_um, reach, canvas.upper_um, canvas.mpp, height)
    columns = pixel_span(shape.x_um, reach, canvas.left_um, canvas.mpp, width)
    for row in range(rows[0], rows[1]):
        y = canvas.upper_um + (row + 0.5) * canvas.mpp
        for column in range(columns[0], columns[1]):
            x = canvas.left_um + (column + 0.5) * canvas.mpp
            depth = _depth(shape, ink.bank, x, y)
            if depth < -ADVENTITIA_UM - 2.0:
                continue
            tissue = cover(distance_to_core(cores, ink.bank, x, y), canvas.mpp)
            if tissue > 0.0:
                _paint_pixel(canvas, (row, column), (x, y, depth, tissue), (shape, ink, number))


@compiled
def _depth(shape: ArteryShape, bank: FloatArray, x: float, y: float) -> float:
    """Return the distance within the outer edge of the muscle, µm, negative outside."""
    dx = x - shape.x_um + 1.6 * noise_at(bank, x * 0.035, y * 0.035 + 5.0)
    dy = y - shape.y_um + 1.6 * noise_at(bank, x * 0.035 + 83.0, y * 0.035)
    along = (dx * shape.turn[0] + dy * shape.turn[1]) / shape.elongation
    across = dy * shape.turn[0] - dx * shape.turn[1]
    return shape.radius_um - math.sqrt(along * along + across * across)


@compiled
def _paint_pixel(
    canvas: Canvas,
    pixel: tuple[int, int],
    at: tuple[float, float, float, float],
    what: tuple[ArteryShape, Ink, int],
) -> None:
    row, column = pixel
    x, y, depth, tissue = at
    shape, ink, number = what
    mpp = canvas.mpp
    fine = noise_at(ink.bank, x * 0.85, y * 0.85)
    coarse = noise_at(ink.bank, x * 0.16, y * 0.16)
    fringe = ADVENTITIA_UM * (0.6 + 0.35 * noise_at(ink.bank, x * 0.03, y * 0.03 + 3.0))
    fibres = 0.25 * math.sin(depth * 1.7 + 3.0 * coarse) + 0.15 * fine
    now = lay((0.0, 0.0, FIBROSIS), ink, FIBROSIS, 1.15 + fibres, 1.0)
    layers = math.sin(depth * 1.5 + 2.6 * coarse)
    now = lay(now, ink, MUSCLE, 1.0 + 0.14 * fine + 0.17 * layers, cover(-depth, mpp))
    inner = depth - shape.muscle_um
    looser = 0.85 + 0.2 * fine + 0.15 * coarse
    now = lay(now, ink, INTIMA, looser, cover(-inner, mpp))
    # The elastic lamina folds where the vessel has contracted.
    fold = 0.9 * math.sin(
        0.9 * shape.radius_um * 0.35 * math.atan2(y - shape.y_um, x - shape.x_um) + 2.0 * coarse
    )
    now = lay(now, ink, TUBULE_MEMBRANE, 0.9, cover(abs(inner + fold) - 0.6, max(mpp, 0.6)))
    lumen = inner - shape.intima_um + 0.5 * coarse
    now = lay(now, ink, VESSEL_LUMEN, 1.0, cover(-lumen, mpp))
    if shape.bloody > 0.0 and lumen > 1.0:
        clot = noise_at(ink.bank, x * 0.06 + 41.0, y * 0.06) + 1.6 - 3.2 * shape.bloody
        cells = 0.8 + 0.3 * noise_at(ink.bank, x * 0.3, y * 0.3) + 0.15 * fine
        now = lay(now, ink, BLOOD, cells, 0.85 * cover(clot * 6.0, 2.0))
    share = tissue * cover(-depth - fringe, max(mpp, 1.0))
    put(canvas, row, column, now, share)
    if depth > 0.0 and tissue > 0.5:
        kept = canvas.masks[row, column] & (CORTEX_BIT | MEDULLA_BIT)
        canvas.masks[row, column] = kept | ARTERY_BIT
        canvas.objects[row, column] = number
