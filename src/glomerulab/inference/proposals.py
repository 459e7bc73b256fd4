"""From a map of scores to outlines: blobs, taken apart where they have several heads.

Pure: a map in, ellipses out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter, label

from glomerulab.geometry import Point
from glomerulab.inference.score_map import ScoreMap
from glomerulab.slides.regions.polygons import contains

__all__ = ["Blob", "blob_outline", "find_blobs"]

SMOOTHING_UM = 24.0
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""A blob is what is joined at the first; heads that part at a higher one are blobs of their own."""
LEAST_RADIUS_UM = 24.0
"""Of the disc that a blob would fill."""
N_CORNERS = 32

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Blob:
    """One place where a detector sees a glomerulus."""

    x: float
    """Of its centre, level-0 pixels, as all lengths here."""
    y: float
    radius: float
    """Of the disc of its area."""
    elongation: float
    """Longer over shorter axis."""
    angle: float
    """Of the longer axis, radians from +x towards +y."""
    score: float
    """Highest smoothed probability."""


def find_blobs(scores: ScoreMap) -> list[Blob]:
    """Find what a detector takes for glomeruli.

    Parameters
    ----------
    scores : ScoreMap

    Returns
    -------
    list of Blob
        Highest score first; none has its centre inside a better one.
    """
    smooth: Map = gaussian_filter(
        scores.values, SMOOTHING_UM / scores.cell_um, mode="constant", truncate=3.0
    )
    least = np.pi * (LEAST_RADIUS_UM / scores.cell_um) ** 2
    blobs = sorted(_blobs(smooth, scores, least), key=lambda one: -one.score)
    kept: list[Blob] = []
    for blob in blobs:
        inside = [bool(contains(blob_outline(other), [(blob.x, blob.y)])[0]) for other in kept]
        if not any(inside):
            kept.append(blob)
    return kept


def blob_outline(blob: Blob, *, growth: float = 1.0) -> tuple[Point, ...]:
    """Return the ellipse of a blob.

    Parameters
    ----------
    blob : Blob
    growth : float, default 1.0
        Factor on its axes.

    Returns
    -------
    tuple of point
        Level-0 pixels.
    """
    angles = np.arange(N_CORNERS) * (2 * np.pi / N_CORNERS)
    stretch = np.sqrt(blob.elongation)
    along = growth * blob.radius * stretch * np.cos(angles)
    across = growth * blob.radius / stretch * np.sin(angles)
    xs = blob.x + along * np.cos(blob.angle) - across * np.sin(blob.angle)
    ys = blob.y + along * np.sin(blob.angle) + across * np.cos(blob.angle)
    return tuple(zip(xs.tolist(), ys.tolist(), strict=True))


def _blobs(smooth: Map, scores: ScoreMap, least: float) -> Iterator[Blob]:
    """Measure every blob, each in a window of its own: slides are large and blobs are few."""
    labels, _ = label(smooth >= LEVELS[0])
    for number, window in enumerate(find_objects(labels), start=1):
        whole: Mask = labels[window] == number
        if whole.sum() < least:
            continue
        for part in _taken_apart(smooth[window], whole, 1, least):
            yield _blob(part, smooth[window], scores, (window[0].start, window[1].start))


def _components(mask: Mask, least: float) -> Iterator[Mask]:
    """Yield the joined parts of a mask that are large enough."""
    labels, n = label(mask)
    for number in range(1, n + 1):
        part: Mask = labels == number
        if part.sum() >= least:
            yield part


def _taken_apart(smooth: Map, part: Mask, level: int, least: float) -> Iterator[Mask]:
    """Part a blob where it has several heads, each large enough, at one of the higher levels."""
    for place in range(level, len(LEVELS)):
        heads = list(_components(part & (smooth >= LEVELS[place]), least))
        if len(heads) > 1:
            nearest = np.argmin([distance_transform_edt(~head) for head in heads], axis=0)
            for number, _ in enumerate(heads):
                yield from _taken_apart(smooth, part & (nearest == number), place + 1, least)
            return
    yield part


def _blob(part: Mask, smooth: Map, scores: ScoreMap, corner: tuple[int, int]) -> Blob:
    """Measure a part by its moments."""
    rows, columns = np.nonzero(part)
    xs = (columns + corner[1] + 0.5) * scores.cell_px[0]
    ys = (rows + corner[0] + 0.5) * scores.cell_px[1]
    spread, axes = np.linalg.eigh(np.cov(xs, ys))
    area = len(rows) * scores.cell_px[0] * scores.cell_px[1]
    return Blob(
        float(xs.mean()),
        float(ys.mean()),
        float(np.sqrt(area / np.pi)),
        float(np.sqrt(spread[1] / max(spread[0], 1e-9))),
        float(np.arctan2(axes[1, 1], axes[0, 1])),
        float(smooth[part].max()),
    )
