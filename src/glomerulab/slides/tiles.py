"""The tiles of a slide for viewers in a browser (Deep Zoom), as JPEG.

OpenSlide's own generator chooses the pixels of a tile. Their number is limited, so that no request
can fill the memory. Label and macro images are not tiles.
"""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from openslide import AbstractSlide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.slides.slide import Slide

__all__ = ["TILE_SIZE", "TilePyramid"]

TILE_SIZE = 254
"""Pixels along a tile's side, without its overlap."""

OVERLAP = 1
JPEG_QUALITY = 80
MAX_TILE_READ_PX = 40_000_000
"""Level pixels read for one tile; the coarsest tile of a slide without a pyramid needs all."""


@dataclass(frozen=True)
class TilePyramid:
    """The tiles of an open slide; reading is safe from several threads at once."""

    slide: Slide

    @cached_property
    def _generator(self) -> DeepZoomGenerator:
        view = cast("AbstractSlide", _Level0View(self.slide))
        return DeepZoomGenerator(view, tile_size=TILE_SIZE, overlap=OVERLAP)

    @property
    def overlap(self) -> int:
        """Pixels a tile shares with its neighbour."""
        return OVERLAP

    @property
    def max_level(self) -> int:
        """The finest tile level; one pixel of it is one level-0 pixel."""
        return int(self._generator.level_count) - 1

    @cached_property
    def min_level(self) -> int:
        """The coarsest tile level that reads no more than `MAX_TILE_READ_PX` pixels."""
        for level in range(self.max_level):
            if self._n_read(level, (0, 0)) <= MAX_TILE_READ_PX:
                return level
        return self.max_level

    def tile_jpeg(self, level: int, column: int, row: int) -> bytes:
        """Read one tile.

        Parameters
        ----------
        level : int
            Tile level, 0 being a single pixel and `max_level` the slide itself.
        column, row : int
            Place of the tile in its level.

        Returns
        -------
        bytes
            JPEG.

        Raises
        ------
        ValueError
            If there is no such tile.
        SlideError
            If the pixels cannot be decoded, after which the slide has to be opened again, or would
            be too many.
        """
        if self._n_read(level, (column, row)) > MAX_TILE_READ_PX:
            raise SlideError(
                "the slide has no level coarse enough for this view; zoom in",
                where=str(self.slide.path),
            )
        tile = self._generator.get_tile(level, (column, row))
        stream = io.BytesIO()
        # No chroma subsampling, which would blur stains. No profile, no metadata.
        tile.save(stream, format="JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=None)
        return stream.getvalue()

    def _n_read(self, level: int, address: tuple[int, int]) -> int:
        _, _, (width, height) = self._generator.get_tile_coordinates(level, address)
        return int(width * height)


class _Level0View:
    """The interface that OpenSlide's generator needs, on a `Slide`."""

    def __init__(self, slide: Slide) -> None:
        self._slide = slide
        self.dimensions = slide.dimensions
        self.level_dimensions = tuple((level.width, level.height) for level in slide.levels)
        self.level_downsamples = tuple(level.downsample for level in slide.levels)
        self.properties: dict[str, Any] = dict(slide.properties)

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """Return the coarsest level that is not coarser than wanted, as OpenSlide does."""
        fine = [n for n, factor in enumerate(self.level_downsamples) if factor <= downsample]
        return fine[-1] if fine else 0

    def read_region(
        self, corner: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        """Read pixels, with OpenSlide's order of arguments."""
        return self._slide.read_level(level, corner, size)
