"""Slide a detection network over a slide, and find the blobs in its map of scores.

A coarse pass looks at every fourth position; a second one at all positions around the promising
ones. Only numpy arrays pass between slide, engine and blobs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    find_objects,
    gaussian_filter,
    label,
    uniform_filter,
    zoom,
)

from glomerulab.geometry import Box, Point
from glomerulab.images import RgbImage, resized
from glomerulab.inference.engines.base import Engine, probabilities_of
from glomerulab.slides.regions.polygons import contains
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import tissue_mask

CELL_PX = 4
"""Distance of neighbouring positions, pixels of the detector."""
COARSE = 4
"""Distance of neighbouring positions in the first pass, cells."""
PROMISING = 0.1
"""Probability from which the second pass looks at all positions around."""
TISSUE_CELLS = 9
MIN_TISSUE = 0.25
"""Share of tissue around a position, below which it is skipped."""
BLOCK_CELLS = 96
"""Side of the blocks in which pixels are read, cells."""
BATCH = 128

SMOOTHING_UM = 24.0
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""A blob is connected at the first level; peaks that separate at a higher one are split."""
MIN_RADIUS_UM = 24.0
"""Of the disc with the area of a blob."""
N_CORNERS = 32

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """The probabilities of a detector over a slide."""

    values: FloatMap
    """Shape (rows, columns): probability that the position lies in the core of a glomerulus."""
    cell_px: tuple[float, float]
    """Width and height of a cell, level-0 pixels."""
    cell_um: float
    n_evaluated: int
    """Positions that the network was run on."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One region of high scores; lengths in level-0 pixels."""

    x: float
    """Of the centre."""
    y: float
    radius: float
    """Of the disc with the same area."""
    elongation: float
    """Longer over shorter axis."""
    angle: float
    """Of the longer axis, radians from +x towards +y."""
    score: float
    """Highest smoothed probability."""


def score_map(slide: Slide, engine: Engine) -> ScoreMap:
    """Run a detector over the tissue of a slide.

    The first class of the engine is the glomerulus; its card states the micrometres per pixel.
    Values are 0 where there is no tissue, and interpolated between positions of the coarse pass.
    """
    window = _SlidingWindow(slide, engine)
    tissue = window.tissue()
    coarse_grid = np.zeros_like(tissue)
    coarse_grid[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE] = True
    values = np.zeros(tissue.shape, dtype=np.float32)
    n_evaluated = window.fill(values, tissue & coarse_grid)
    coarse = values[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE]
    near = binary_dilation(values > PROMISING, np.ones((2 * COARSE + 1,) * 2))
    values = np.where(tissue, _enlarged(coarse, tissue.shape), 0.0).astype(np.float32)
    n_evaluated += window.fill(values, tissue & near)
    return ScoreMap(values, window.cell_px, CELL_PX * window.mpp, n_evaluated)


def find_blobs(scores: ScoreMap) -> list[Blob]:
    """Find the blobs of a score map, highest score first; no centre lies inside a better blob."""
    smooth: FloatMap = gaussian_filter(
        scores.values, SMOOTHING_UM / scores.cell_um, mode="constant", truncate=3.0
    )
    min_area = np.pi * (MIN_RADIUS_UM / scores.cell_um) ** 2
    kept: list[Blob] = []
    for blob in sorted(_blobs(smooth, scores, min_area), key=lambda one: -one.score):
        if not any(contains(blob_outline(other), [(blob.x, blob.y)])[0] for other in kept):
            kept.append(blob)
    return kept


def blob_outline(blob: Blob, *, growth: float = 1.0) -> tuple[Point, ...]:
    """Return the ellipse of a blob in level-0 pixels, its axes multiplied by `growth`."""
    angles = np.arange(N_CORNERS) * (2 * np.pi / N_CORNERS)
    stretch = np.sqrt(blob.elongation)
    along = growth * blob.radius * stretch * np.cos(angles)
    across = growth * blob.radius / stretch * np.sin(angles)
    xs = blob.x + along * np.cos(blob.angle) - across * np.sin(blob.angle)
    ys = blob.y + along * np.sin(blob.angle) + across * np.cos(blob.angle)
    return tuple(zip(xs.tolist(), ys.tolist(), strict=True))


class _SlidingWindow:
    """Reads the windows of a slide block by block and runs the network on them."""

    def __init__(self, slide: Slide, engine: Engine) -> None:
        self.slide, self.engine = slide, engine
        self.mpp = engine.card.mpp or 0.0
        self.side = engine.card.input_size
        self.scale = tuple(self.mpp / own for own in slide.mpp_xy)  # level-0 px per pixel
        self.cell_px = (CELL_PX * self.scale[0], CELL_PX * self.scale[1])

    def tissue(self) -> BoolMap:
        """Return the cells with enough tissue around them."""
        extent = Box(0, 0, *self.slide.dimensions)
        pixels = self.slide.read_region(extent, mpp=CELL_PX * self.mpp)
        mask = tissue_mask(pixels, np.array(self.slide.background, dtype=np.float64))
        share = uniform_filter(mask.astype(np.float32), TISSUE_CELLS, mode="constant")
        enough: BoolMap = share >= MIN_TISSUE
        return enough

    def fill(self, values: FloatMap, positions: BoolMap) -> int:
        """Write the probabilities of some positions into `values`; return their number."""
        for upper in range(0, positions.shape[0], BLOCK_CELLS):
            for left in range(0, positions.shape[1], BLOCK_CELLS):
                block = (slice(upper, upper + BLOCK_CELLS), slice(left, left + BLOCK_CELLS))
                rows, columns = np.nonzero(positions[block])
                if len(rows):
                    scores = self._scores(upper, left, rows, columns)
                    values[block][rows, columns] = np.concatenate(list(scores))
        return int(positions.sum())

    def _scores(
        self, upper: int, left: int, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
    ) -> Iterator[FloatMap]:
        """Yield the probabilities of the positions of one block, batch by batch."""
        pixels = self._read(upper * CELL_PX, left * CELL_PX)
        views = np.lib.stride_tricks.sliding_window_view(
            pixels, (self.side, self.side), axis=(0, 1)
        )  # (y, x, 3, S, S)
        middle = CELL_PX // 2
        for start in range(0, len(rows), BATCH):
            chosen = slice(start, start + BATCH)
            batch = views[rows[chosen] * CELL_PX + middle, columns[chosen] * CELL_PX + middle]
            images = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
            logits = self.engine.predict(images).logits
            yield probabilities_of(logits, self.engine.card.head)[:, 0].astype(np.float32)

    def _read(self, upper: int, left: int) -> RgbImage:
        """Read a block and half a window around it."""
        half = self.side // 2
        length = BLOCK_CELLS * CELL_PX + self.side
        box = Box(
            round((left - half) * self.scale[0]),
            round((upper - half) * self.scale[1]),
            max(round(length * self.scale[0]), 1),
            max(round(length * self.scale[1]), 1),
        )
        return resized(self.slide.read_region(box, mpp=self.mpp), length, length)


def _enlarged(coarse: FloatMap, shape: tuple[int, ...]) -> FloatMap:
    """Interpolate the coarse pass to every cell."""
    if not coarse.size:
        return np.zeros(shape, dtype=np.float32)
    wide = zoom(coarse, COARSE, order=1, mode="nearest", grid_mode=True)
    padded = np.pad(wide, [(0, max(0, n - m)) for n, m in zip(shape, wide.shape, strict=True)])
    found: FloatMap = padded[: shape[0], : shape[1]]
    return found


def _blobs(smooth: FloatMap, scores: ScoreMap, min_area: float) -> Iterator[Blob]:
    """Measure every blob in a window of its own, since slides are large and blobs few."""
    labels, _ = label(smooth >= LEVELS[0])
    for number, window in enumerate(find_objects(labels), start=1):
        mask: BoolMap = labels[window] == number
        if mask.sum() < min_area:
            continue
        for part in _split(smooth[window], mask, 1, min_area):
            yield _blob(part, smooth[window], scores, (window[0].start, window[1].start))


def _components(mask: BoolMap, min_area: float) -> Iterator[BoolMap]:
    labels, n = label(mask)
    for number in range(1, n + 1):
        component: BoolMap = labels == number
        if component.sum() >= min_area:
            yield component


def _split(smooth: FloatMap, mask: BoolMap, level: int, min_area: float) -> Iterator[BoolMap]:
    """Split a blob at the first level at which it has several peaks, each large enough."""
    for index in range(level, len(LEVELS)):
        peaks = list(_components(mask & (smooth >= LEVELS[index]), min_area))
        if len(peaks) > 1:
            nearest = np.argmin([distance_transform_edt(~peak) for peak in peaks], axis=0)
            for number, _ in enumerate(peaks):
                yield from _split(smooth, mask & (nearest == number), index + 1, min_area)
            return
    yield mask


def _blob(mask: BoolMap, smooth: FloatMap, scores: ScoreMap, corner: tuple[int, int]) -> Blob:
    """Measure a blob by its moments."""
    rows, columns = np.nonzero(mask)
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
        float(smooth[mask].max()),
    )
