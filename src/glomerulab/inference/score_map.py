"""A network slid over the tissue of a slide: at each place, how sure it is of a glomerulus.

First every fourth place, then every place around what looked promising, so that the time goes to
where glomeruli may be. The engine may be torch or an exported model.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation, uniform_filter, zoom

from glomerulab.geometry import Box
from glomerulab.images import RgbImage, resized
from glomerulab.inference.engines.base import Engine, probabilities_of
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import tissue_mask

__all__ = ["CELL_PX", "ScoreMap", "score_map"]

CELL_PX = 4
"""Pixels of the detector between two places."""
COARSE = 4
"""Cells between the places of the first pass."""
PROMISING = 0.1
"""Probability from which the places around are looked at one by one."""
TISSUE_CELLS = 9
LEAST_TISSUE = 0.25
"""Share of tissue around a place, below which it is not looked at."""
BLOCK_CELLS = 96
"""Cells along the side of the blocks that pixels are read in."""
BATCH = 128

FloatMap = npt.NDArray[np.float32]
BoolMap = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """What a detector says of each place."""

    values: FloatMap
    """Shape (rows, columns): probability that the place lies in the core of a glomerulus."""
    cell_px: tuple[float, float]
    """Width and height of a cell, level-0 pixels."""
    cell_um: float
    n_looked_at: int
    """Places that the network was asked about."""


def score_map(slide: Slide, engine: Engine) -> ScoreMap:
    """Slide a detector over a slide.

    Parameters
    ----------
    slide : Slide
    engine : Engine
        Of two classes, the first being the glomerulus; its card says the micrometres per pixel.

    Returns
    -------
    ScoreMap
        0 where there is no tissue; between the places of the first pass, interpolated.
    """
    window = _Window(slide, engine)
    tissue = window.tissue()
    coarse_places = np.zeros_like(tissue)
    coarse_places[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE] = True
    values = np.zeros(tissue.shape, dtype=np.float32)
    n_looked_at = window.fill(values, tissue & coarse_places)
    first = values[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE]
    near = binary_dilation(values > PROMISING, np.ones((2 * COARSE + 1,) * 2))
    values = np.where(tissue, _enlarged(first, tissue.shape), 0.0).astype(np.float32)
    n_looked_at += window.fill(values, tissue & near)
    return ScoreMap(values, window.cell_px, CELL_PX * window.mpp, n_looked_at)


class _Window:
    """The square that slides, and the pixels it slides over."""

    def __init__(self, slide: Slide, engine: Engine) -> None:
        self.slide, self.engine = slide, engine
        self.mpp = engine.card.mpp or 0.0
        self.side = engine.card.input_size
        self.scale = tuple(self.mpp / own for own in slide.mpp_xy)  # level-0 px per pixel
        self.cell_px = (CELL_PX * self.scale[0], CELL_PX * self.scale[1])

    def tissue(self) -> BoolMap:
        """Mark the cells that have enough tissue around them."""
        whole = Box(0, 0, *self.slide.dimensions)
        pixels = self.slide.read_region(whole, mpp=CELL_PX * self.mpp)
        mask = tissue_mask(pixels, np.array(self.slide.background, dtype=np.float64))
        share = uniform_filter(mask.astype(np.float32), TISSUE_CELLS, mode="constant")
        enough: BoolMap = share >= LEAST_TISSUE
        return enough

    def fill(self, values: FloatMap, places: BoolMap) -> int:
        """Ask the network about places, and write what it says; return how many there were."""
        for upper in range(0, places.shape[0], BLOCK_CELLS):
            for left in range(0, places.shape[1], BLOCK_CELLS):
                block = (slice(upper, upper + BLOCK_CELLS), slice(left, left + BLOCK_CELLS))
                rows, columns = np.nonzero(places[block])
                if len(rows):
                    windows = self._windows(upper, left, rows, columns)
                    values[block][rows, columns] = np.concatenate(list(windows))
        return int(places.sum())

    def _windows(
        self, upper: int, left: int, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
    ) -> Iterator[FloatMap]:
        """Yield the probabilities of the places of one block, batch by batch."""
        pixels = self._read(upper * CELL_PX, left * CELL_PX)
        views = np.lib.stride_tricks.sliding_window_view(
            pixels, (self.side, self.side), axis=(0, 1)
        )  # (y, x, 3, S, S)
        middle = CELL_PX // 2
        for start in range(0, len(rows), BATCH):
            chosen = slice(start, start + BATCH)
            batch = views[rows[chosen] * CELL_PX + middle, columns[chosen] * CELL_PX + middle]
            images = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
            logits = self.engine.answer(images).logits
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


def _enlarged(first: FloatMap, shape: tuple[int, ...]) -> FloatMap:
    """Interpolate the first pass to every cell."""
    if not first.size:
        return np.zeros(shape, dtype=np.float32)
    wide = zoom(first, COARSE, order=1, mode="nearest", grid_mode=True)
    padded = np.pad(wide, [(0, max(0, n - m)) for n, m in zip(shape, wide.shape, strict=True)])
    whole: FloatMap = padded[: shape[0], : shape[1]]
    return whole
