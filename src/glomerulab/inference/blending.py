"""Blend overlapping tiles of probabilities, and find the structures of each pixel.

One pass over the probabilities of a tile adds what its neighbours left in the overlaps, compares,
and keeps what the next ones need: only the overlaps of one row of tiles are in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glomerulab.runtime.jit import F32, U16, Flags, compiled
from glomerulab.structures.maps import LAYERS

__all__ = ["Blender", "TileSettings"]

CORE_LIMIT = 0.5
"""Probability from which a pixel belongs to a core."""


@dataclass(frozen=True, slots=True)
class TileSettings:
    """How a slide is divided."""

    side_px: int = 512
    """Of a tile, in pixels of the model; a multiple of 32."""
    overlap_px: int = 64
    """Shared with each neighbour; at most half of the side."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for tiles that leave gaps or lie on several others."""
        if not 0 < self.overlap_px <= self.side_px // 2:
            raise ValueError(f"overlap_px must be 1 to {self.side_px // 2}, got {self.overlap_px}")

    @property
    def context_px(self) -> int:
        """Width of the edge that has no weight, and that is mirrored around the slide."""
        return self.overlap_px // 4

    @property
    def step_px(self) -> int:
        """Distance of neighbouring tiles."""
        return self.side_px - self.overlap_px


class Blender:
    """Blends tiles in reading order; a tile may be missing.

    Parameters
    ----------
    tiles : TileSettings
    n_columns, n_rows : int
        Of tiles.
    n_structures : int
        Channel k of the probabilities stands for bit k of a pixel.
    core_bits : sequence of int
        Bits of the channels of cores, which follow.
    """

    def __init__(
        self,
        tiles: TileSettings,
        n_columns: int,
        n_rows: int,
        *,
        n_structures: int,
        core_bits: Sequence[np.uint16],
    ) -> None:
        side, overlap = tiles.side_px, tiles.overlap_px
        n_sums = n_structures + len(core_bits) + 1  # the last: of the weights
        width = (n_columns - 1) * tiles.step_px + side
        self._tiles, self._size = tiles, (n_columns, n_rows)
        self._bits = np.array([1 << k for k in range(n_structures)] + list(core_bits), np.uint16)
        self._limits = np.array([*LAYERS.values(), CORE_LIMIT], np.float32)
        self._n_structures = n_structures
        self._weight = _weight(tiles)
        self._above, self._below = np.zeros((2, n_sums, overlap, width), np.float32)
        self._left = np.zeros((n_sums, side, overlap), np.float32)
        self._zeros = np.zeros((side, side), np.float32)
        self._ones = np.ones_like(self._zeros)
        self._sums, self._weights = np.empty((2, side, side), np.float32)
        self._found = np.empty((len(self._limits), side, side), np.uint16)
        self._before = (-1, -1)

    def add(self, row: int, column: int, chances: F32 | None) -> tuple[U16, Flags]:
        """Add a tile, and find the structures of the part of it that no later tile overlaps.

        Parameters
        ----------
        chances : ndarray of float32, shape (channels, side, side), optional
            None for a tile without a result.

        Returns
        -------
        found : ndarray of uint16, shape (layers, height, width)
            Bits of the layers of `maps.LAYERS` and of the cores; the next tile overwrites it.
        covered : ndarray of bool, shape (height, width)
            Where there is a result.
        """
        side, step = self._tiles.side_px, self._tiles.step_px
        before, self._before = self._before, (row, column)
        if row != before[0]:
            self._above, self._below = self._below, self._above
            self._below[:] = 0.0
            if before[0] != row - 1:
                self._above[:] = 0.0
        if before != (row, column - 1):
            self._left[:] = 0.0
        across = side if column == self._size[0] - 1 else step
        down = side if row == self._size[1] - 1 else step
        place = (column * step, across)
        covered = self._ones if chances is not None else self._zeros
        self._sum(len(self._bits), covered, place, self._weights)
        self._found[:] = 0
        for k, bit in enumerate(self._bits):
            self._sum(k, self._zeros if chances is None else chances[k], place, self._sums)
            layers = slice(None, -1) if k < self._n_structures else slice(-1, None)
            _set_bits(self._sums, self._weights, self._limits[layers], bit, self._found[layers])
        return self._found[:, :down, :across], self._weights[:down, :across] > 0

    def _sum(self, k: int, chances: F32, place: tuple[int, int], sums: F32) -> None:
        overlaps = (self._left[k], self._above[k], self._below[k])
        _weighted_sum(chances, self._weight, overlaps, place, sums)


@compiled
def _weighted_sum(
    chances: F32, weight: F32, overlaps: tuple[F32, F32, F32], place: tuple[int, int], sums: F32
) -> None:
    """Weigh a channel, add what the tiles before left in the overlaps, and leave them its own."""
    left, above, below = overlaps
    x0, across = place
    side, overlap = left.shape
    step = side - overlap
    for y in range(side):
        line = sums[y]
        for x in range(side):
            line[x] = chances[y, x] * weight[y, x]
        for x in range(overlap):
            line[x] += left[y, x]
        if y < overlap:
            for x in range(across):
                line[x] += above[y, x0 + x]
        left[y] = line[step:]
        if y >= step:
            below[y - step, x0 : x0 + across] = line[:across]


@compiled
def _set_bits(sums: F32, weights: F32, limits: F32, bit: np.uint16, found: U16) -> None:
    """Set the bit in each layer where the weighted mean reaches the layer's limit."""
    for y in range(len(sums)):
        for layer in range(len(limits)):
            row = found[layer, y]
            for x in range(len(row)):
                if sums[y, x] >= limits[layer] * weights[y, x]:
                    row[x] |= bit


def _weight(tiles: TileSettings) -> F32:
    """Return the weights of a tile; those of two that overlap add up to 1."""
    rise = (np.arange(tiles.side_px) + 0.5 - tiles.context_px) / (
        tiles.overlap_px - 2 * tiles.context_px
    )
    along = np.clip(np.minimum(rise, rise[::-1]), 0.0, 1.0)
    return np.outer(along, along).astype(np.float32)
