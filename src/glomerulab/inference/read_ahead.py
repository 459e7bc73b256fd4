"""Read tiles of a slide, or of an image in memory, while the network works on those before."""

import copy
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Protocol

from glomerulab.errors import GlomerulabError, SlideError
from glomerulab.geometry import Point
from glomerulab.images import RgbImage

__all__ = ["MemoryImage", "Source", "read_ahead"]

N_AHEAD = 3
"""Tiles that are read while the network works."""


class Source(Protocol):
    """What tiles are read from: a slide, or an image in memory."""

    def read_grid(
        self, corner: Point, size: tuple[int, int], *, downsample: tuple[float, float]
    ) -> RgbImage:
        """Return a part, as `Slide.read_grid`."""
        ...

    def close(self) -> None:
        """Close the file, if there is one."""
        ...


class MemoryImage:
    """An image in memory, at the scale of the map."""

    def __init__(self, pixels: RgbImage) -> None:
        self._pixels = pixels

    def read_grid(
        self,
        corner: Point,
        size: tuple[int, int],
        *,
        downsample: tuple[float, float],  # noqa: ARG002 - 1
    ) -> RgbImage:
        """Return a part."""
        left, top = (round(at) for at in corner)
        return self._pixels[top : top + size[1], left : left + size[0]]

    def close(self) -> None:
        """Nothing is open."""


def read_ahead(
    source: Source,
    read: Callable[[Source, tuple[int, int]], RgbImage],
    places: Sequence[tuple[int, int]],
) -> Generator[tuple[tuple[int, int], RgbImage | GlomerulabError]]:
    """Yield the tiles at places, or why there is none; a thread reads the next ones meanwhile."""
    reader = _Reader(source, read)
    with closing(reader), ThreadPoolExecutor(1) as pool:  # the thread ends before the file closes
        waiting: deque[Future[RgbImage | GlomerulabError]] = deque()
        try:
            for number, place in enumerate(places):
                while len(waiting) < N_AHEAD and number + len(waiting) < len(places):
                    waiting.append(pool.submit(reader.read, places[number + len(waiting)]))
                yield place, waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


class _Reader:
    """Reads tiles with a handle of its own, which is opened again after an error."""

    def __init__(self, source: Source, read: Callable[[Source, tuple[int, int]], RgbImage]) -> None:
        self._source = copy.copy(source)
        self._read = read

    def read(self, place: tuple[int, int]) -> RgbImage | GlomerulabError:
        """Return a tile, or why there is none."""
        try:
            return self._read(self._source, place)
        except SlideError as error:
            # After an error, every later read of an OpenSlide handle fails with the same error.
            self._source.close()
            self._source = copy.copy(self._source)
            return error

    def close(self) -> None:
        """Close the slide."""
        self._source.close()
