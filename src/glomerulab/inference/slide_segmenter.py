"""Run a segmentation network over the tissue of a slide, in overlapping tiles.

The probabilities of neighbouring tiles are blended: the outer quarter of an overlap, where the
network lacks surroundings, has no weight, and the weight rises over the half behind it. Around the
slide its pixels are mirrored.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glomerulab.cases.case_folder import Note
from glomerulab.errors import GlomerulabError, SlideError
from glomerulab.geometry import Box
from glomerulab.i18n.catalogue import LANGUAGES, translate
from glomerulab.images import RgbImage
from glomerulab.inference.blending import Blender, TileSettings
from glomerulab.inference.read_ahead import MemoryImage, Source, read_ahead
from glomerulab.inference.segmenter import Segmenter
from glomerulab.models.card import SegmenterCard
from glomerulab.runtime.jit import U16, Flags
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.scale import SAME_MPP
from glomerulab.slides.slide import Slide
from glomerulab.structures.classes import structure
from glomerulab.structures.maps import (
    CORE,
    LAYERS,
    MapFrame,
    StructureMap,
    create_map,
    read_window,
    write_window,
)
from glomerulab.structures.tissue import Tissue, find_tissue

__all__ = ["SlideSegmentation", "TileFailure", "segment_image", "segment_slide"]

MAX_COARSER = 2.0
"""A slide this many times coarser than the model is refused."""
SAME_SCALE = 0.03
"""A level of the slide whose mpp differs by less than this share from the model's is taken as it
is: training varies the scale more, and its pixels are sharp and quick to read."""
MAX_OUTSIDE = 0.1
"""Share of a structure's pixels outside the tissue above which these are not counted."""
N_WRITTEN = 8
"""Tiles side by side that are written together, in place of a short write for each row of each."""

FloatMap = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TileFailure:
    """A tile without a result."""

    box: Box
    """In level-0 pixels."""
    reason: str


@dataclass(frozen=True, slots=True)
class SlideSegmentation:
    """The structures of a slide, and what needs attention."""

    map: StructureMap
    n_tiles: int
    """Tiles with tissue."""
    tissue_um2: float
    failures: tuple[TileFailure, ...]
    notes: tuple[Note, ...]
    """Besides `Slide.scale_warnings`."""


def segment_slide(
    slide: Slide,
    segmenter: Segmenter,
    folder: Path,
    *,
    tiles: TileSettings | None = None,
    track: Track = silent,
) -> SlideSegmentation:
    """Find the structures of a slide.

    Parameters
    ----------
    slide : Slide
        Stays open, and is not read by another thread meanwhile.
    folder : Path
        Gets the map, up to 8 bytes per pixel of tissue.
    tiles : TileSettings, optional
        The result hardly depends on it (docs/benchmarks.md).

    Returns
    -------
    SlideSegmentation
        A slide of glass gives an empty map and a note. Tiles that cannot be read are failures. A
        structure of which more than a tenth lies outside the tissue is told, and kept within it.

    Raises
    ------
    SlideError
        If the slide is more than twice as coarse as the model, or none of its tiles can be read.
    MissingMppError
        If the scale of the slide is not known.
    GlomerulabError
        If the disk has no room for the map.
    """
    card = segmenter.card
    frame = map_frame(slide, card.structures, card.mpp)
    notes = _scale_notes(slide, card.mpp)
    tissue = find_tissue(slide, least_mpp=max(frame.mpp))
    run = _Run(slide, segmenter, create_map(folder, frame), tissue, tiles)
    places = run.places()
    for _ in track(run.rows(places), "Segmenting tissue", len({row for row, _ in places})):
        pass
    if places and len(run.failures) == len(places):
        raise SlideError(
            f"no tile of the slide could be segmented ({run.failures[0].reason})",
            where=str(slide.path),
        )
    if not places:
        notes.append(Note.of("There is no tissue on slide {slide}.", slide=slide.slide_id))
    if run.failures:
        notes.append(
            Note.of(
                "{n} of {total} tiles of slide {slide} could not be segmented and hold no "
                "structure.",
                n=len(run.failures),
                total=len(places),
                slide=slide.slide_id,
            )
        )
    if outside := run.drop_outside(places):
        notes.append(_outside_note(outside, slide.slide_id))
    return SlideSegmentation(
        run.map, len(places), tissue.area_um2, tuple(run.failures), tuple(notes)
    )


def segment_image(pixels: RgbImage, segmenter: Segmenter) -> StructureMap:
    """Find the structures of an image at the model's mpp, as on a slide that is all tissue.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W, 3)

    Returns
    -------
    StructureMap
        In memory; its frame has the size and scale of the image.
    """
    height, width = pixels.shape[:2]
    card = segmenter.card
    frame = MapFrame(
        card.structures, width, height, (card.mpp, card.mpp), (1.0, 1.0), (width, height)
    )
    layers = [np.zeros((height, width), np.uint16) for _ in range(len(LAYERS) + 1)]
    run = _Run(MemoryImage(pixels), segmenter, StructureMap(frame, *layers), None, None)
    for _ in run.rows(run.places()):
        pass
    return run.map


def map_frame(slide: Slide, structures: Sequence[str], mpp: float) -> MapFrame:
    """Lay the grid of a map over a slide, at the model's mpp or at a level close to it."""
    own = slide.mpp_xy
    if max(own) > MAX_COARSER * mpp:
        raise SlideError(
            f"the slide has {max(own):.3g} µm per pixel, and the segmenter needs {mpp:g}: "
            f"structures cannot be seen on it; scan it finer, or use a model of at least "
            f"{max(own) / MAX_COARSER:.2g} µm per pixel",
            where=str(slide.path),
        )
    scale = (mpp / own[0], mpp / own[1])
    for level in slide.levels:
        if all(abs(level.downsample / one - 1) < SAME_SCALE for one in scale):
            scale = (level.downsample, level.downsample)
    width, height = (
        max(1, math.ceil(length / one - 0.5))
        for length, one in zip(slide.dimensions, scale, strict=True)
    )
    return MapFrame(
        tuple(structures),
        width,
        height,
        mpp=(own[0] * scale[0], own[1] * scale[1]),
        scale=scale,
        slide_size=slide.dimensions,
    )


def _scale_notes(slide: Slide, mpp: float) -> list[Note]:
    if max(slide.mpp_xy) <= mpp * (1 + max(SAME_MPP, SAME_SCALE)):
        return []
    return [
        Note.of(
            "Slide {slide} has {own} µm per pixel and is enlarged to the {mpp} of the segmenter: "
            "outlines are less exact.",
            slide=slide.slide_id,
            own=f"{max(slide.mpp_xy):.3g}",
            mpp=f"{mpp:g}",
        )
    ]


def _outside_note(outside: Mapping[str, float], slide_id: str) -> Note:
    texts = {
        language: translate(
            "Of what the segmenter outlined on slide {slide}, these shares lie outside the tissue "
            "and are not counted: {parts}.",
            language,
            slide=slide_id,
            parts=translate("sign|, ", language).join(
                translate(
                    "{structure} ({n} %)",
                    language,
                    structure=structure(name).name_in(language).lower(),
                    n=f"{100 * share:.0f}",
                )
                for name, share in outside.items()
            ),
        )
        for language in LANGUAGES
    }
    return Note(**texts)


class _TileError(GlomerulabError):
    """A tile has no result."""


class _Run:
    """Segments tiles row by row, and blends them where they overlap."""

    def __init__(
        self,
        source: Source,
        segmenter: Segmenter,
        target: StructureMap,
        tissue: Tissue | None,
        tiles: TileSettings | None,
    ) -> None:
        self.map = target
        self.failures: list[TileFailure] = []
        self._layers = [getattr(target, name) for name in (*LAYERS, CORE)]
        self._unwritten: list[U16] = []
        self._next_place = (range(0), 0)
        self._source = source
        self._segmenter = segmenter
        self._tissue = tissue
        self._frame = frame = target.frame
        self._tiles = tiles = _fitting(tiles or TileSettings(), segmenter.card, frame)
        self._n_outlined, self._n_outside = np.zeros((2, len(frame.structures)), np.int64)
        self._n_columns, self._n_rows = (
            max(1, math.ceil((length + 2 * tiles.context_px - tiles.overlap_px) / tiles.step_px))
            for length in (frame.width, frame.height)
        )

    def places(self) -> list[tuple[int, int]]:
        """Return the row and column of each tile with tissue, in the order of reading."""
        return [
            (row, column)
            for row in range(self._n_rows)
            for column in range(self._n_columns)
            if self._tissue is None
            or self._tissue.of(self._tissue.near, self._frame, *self._extent(row, column)).any()
        ]

    def rows(self, places: Sequence[tuple[int, int]]) -> Iterator[int]:
        """Segment tiles, and yield the number of each row that is done."""
        blender = Blender(
            self._tiles,
            self._n_columns,
            self._n_rows,
            n_structures=len(self._frame.structures),
            core_bits=[self._frame.bit(one) for one in self._segmenter.card.cores],
        )
        before = -1
        with closing(self._chances(places)) as tiles:
            for (row, column), chances in tiles:
                if row != before >= 0:
                    self._flush()
                    yield before
                found, is_covered = blender.add(row, column, chances)
                self._write(found, is_covered, self._start(column), self._start(row))
                before = row
        self._flush()
        if before >= 0:
            yield before

    def drop_outside(self, places: Sequence[tuple[int, int]]) -> dict[str, float]:
        """Return the structures of which too much lies outside the tissue, with the share of it.

        What of them lies there is taken out of the map.
        """
        shares = self._n_outside / np.maximum(self._n_outlined, 1)
        found = {
            name: float(share)
            for name, share in zip(self._frame.structures, shares, strict=True)
            if share > MAX_OUTSIDE
        }
        if self._tissue is None or not found:
            return {}
        kept = ~np.bitwise_or.reduce([self._frame.bit(name) for name in found])
        for place in places:  # elsewhere is nothing
            columns, rows = self._extent(*place)
            inside = self._tissue.of(self._tissue.inside, self._frame, columns, rows)
            for layer in self._layers:
                bits = read_window(layer, rows.start, rows.stop, columns.start, columns.stop)
                new = np.where(inside, bits, bits & kept)
                changed = (new != bits).any(axis=1)
                write_window(layer, rows.start, columns.start, new, rows=changed)
        return found

    def _chances(
        self, places: Sequence[tuple[int, int]]
    ) -> Generator[tuple[tuple[int, int], FloatMap | None]]:
        """Yield the probabilities of each tile, shape (channels, side, side); None if it failed."""
        images = read_ahead(self._source, self._read, places)
        with self._segmenter.threads() as pool, closing(images):
            waiting: deque[tuple[tuple[int, int], Future[FloatMap]]] = deque()
            try:
                for place, image in images:
                    waiting.append((place, pool.submit(self._predict, image)))
                    if len(waiting) > self._segmenter.n_threads:
                        yield self._first(waiting)
                while waiting:
                    yield self._first(waiting)
            finally:
                for _, one in waiting:
                    one.cancel()

    def _first(
        self, waiting: deque[tuple[tuple[int, int], Future[FloatMap]]]
    ) -> tuple[tuple[int, int], FloatMap | None]:
        place, result = waiting.popleft()
        try:
            return place, result.result()
        except _TileError as error:
            self._fail(place, error.message)
            return place, None

    def _predict(self, image: RgbImage | GlomerulabError) -> FloatMap:
        if isinstance(image, GlomerulabError):
            raise _TileError(image.message)
        found: FloatMap = self._segmenter.probabilities(image[np.newaxis])[0]
        if not np.isfinite(found.sum()):
            raise _TileError("the network gave no numbers")
        return found

    def _read(self, source: Source, place: tuple[int, int]) -> RgbImage:
        """Read a tile; beyond the slide it is mirrored."""
        columns, rows = self._extent(*place)
        scale = self._frame.scale
        corner = (columns.start * scale[0], rows.start * scale[1])
        pixels = source.read_grid(corner, (len(columns), len(rows)), downsample=scale)
        missing = []
        for number, pixels_there in zip(place, (rows, columns), strict=True):
            before = pixels_there.start - self._start(number)
            missing.append((before, self._tiles.side_px - before - len(pixels_there)))
        return np.ascontiguousarray(np.pad(pixels, (*missing, (0, 0)), mode="symmetric"))

    def _extent(self, row: int, column: int) -> tuple[range, range]:
        """Return the columns and rows of the map under a tile."""
        x, y, side = self._start(column), self._start(row), self._tiles.side_px
        return (
            range(max(x, 0), min(x + side, self._frame.width)),
            range(max(y, 0), min(y + side, self._frame.height)),
        )

    def _start(self, number: int) -> int:
        """Return the first column of a column of tiles, or the first row of a row of them."""
        return number * self._tiles.step_px - self._tiles.context_px

    def _fail(self, place: tuple[int, int], reason: str) -> None:
        columns, rows = self._extent(*place)
        x, y = self._frame.to_slide(columns.start, rows.start)
        right, lower = self._frame.to_slide(columns.stop, rows.stop)
        box = Box(round(x), round(y), max(1, round(right - x)), max(1, round(lower - y)))
        self.failures.append(TileFailure(box, reason))

    def _write(self, found: U16, is_covered: Flags, x: int, y: int) -> None:
        """Write the bits of a part of the map."""
        columns = range(max(x, 0), min(x + found.shape[2], self._frame.width))
        rows = range(max(y, 0), min(y + found.shape[1], self._frame.height))
        part = (slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x))
        tissue = is_covered[part]
        if self._tissue is not None:
            tissue &= self._tissue.of(self._tissue.near, self._frame, columns, rows)
        bits = found[:, *part] * tissue
        self._count(bits[list(LAYERS).index("likely")], columns, rows)
        if (rows, columns.start) != self._next_place or len(self._unwritten) == N_WRITTEN:
            self._flush()
        self._unwritten.append(bits)
        self._next_place = (rows, columns.stop)

    def _flush(self) -> None:
        """Write the parts that lie side by side."""
        if self._unwritten:
            bits = np.concatenate(self._unwritten, axis=2)
            rows, right = self._next_place
            for layer, values in zip(self._layers, bits, strict=True):
                left = right - values.shape[1]
                write_window(layer, rows.start, left, values, rows=values.any(axis=1))
            self._unwritten.clear()

    def _count(self, found: npt.NDArray[np.uint16], columns: range, rows: range) -> None:
        """Count the pixels of each structure, in all and outside the tissue."""
        if self._tissue is None or not found.any():
            return
        outside = found[self._tissue.of(self._tissue.outside, self._frame, columns, rows)]
        for k in range(len(self._n_outlined)):
            self._n_outlined[k] += np.count_nonzero(found & (1 << k))
            self._n_outside[k] += np.count_nonzero(outside & (1 << k))


def _fitting(tiles: TileSettings, card: SegmenterCard, frame: MapFrame) -> TileSettings:
    """Return tiles of the network's size, or smaller ones for an image that is smaller than one."""
    if card.has_fixed_size:
        return TileSettings(card.patch_px, card.patch_px // 4)
    length = max(frame.width, frame.height)
    side = min(tiles.side_px, 32 * math.ceil((length + 2 * tiles.context_px) / 32))
    return TileSettings(side, min(tiles.overlap_px, side // 2))
