"""Single objects in a map: glomeruli, tubules and arteries, parted where they touch.

The core of an object is its marker; it grows within the likely pixels, in steps to the four
neighbours, until it meets another or has gone `REACH_UM`. What no core reaches is an object of its
own. The map is read in strips, and an object is given out when nothing below can belong to it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from glomerulab.runtime.jit import I32, Flags, compiled
from glomerulab.structures.classes import structure
from glomerulab.structures.maps import StructureMap, read_rows
from glomerulab.structures.tissue import Outside

__all__ = ["MIN_AREA_UM2", "StructureObject", "count_possible", "find_objects"]

MIN_AREA_UM2 = {
    "glomerulus": 1000.0,
    "sclerosed_glomerulus": 500.0,
    "tubule": 150.0,
    "atrophic_tubule": 80.0,
    "artery": 150.0,
}
"""Smaller objects are left out; a disc of 1,000 µm² is 36 µm wide."""
OTHER_MIN_AREA_UM2 = 100.0
REACH_UM = 60.0
"""How far an object may grow from its core."""
STRIP_PX = 1 << 24
"""Pixels read at once."""

Slices = tuple[slice, slice]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False, slots=True)
class StructureObject:
    """One object of a structure, in pixels of the map."""

    structure: str
    left: int
    top: int
    mask: Flags
    """Shape (height, width) of its bounding box."""
    certainty: float
    """Share of its pixels that are certain, from 0 to 1."""
    touches_edge: bool
    """Whether the edge of the slide or of the tissue cuts it."""

    @property
    def first_pixel(self) -> tuple[int, int]:
        """Row and column of its first pixel in reading order, which no other object has."""
        return self.top, self.left + int(np.flatnonzero(self.mask[0])[0])


@dataclass(frozen=True, eq=False, slots=True)
class _Piece:
    """The part of an object that one strip shows."""

    top: int
    left: int
    mask: Flags
    n_certain: int


@dataclass(slots=True)
class _Joined(Generic[Item]):
    """Labels of several strips, of which some are one and the same thing, with their items."""

    items: dict[int, list[Item]] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    offset: int = 0
    """Added to the labels of the strip at hand."""

    def root(self, key: int) -> int:
        """Return the label that stands for all that are one with this."""
        while (parent := self.parents.get(key, key)) != key:
            self.parents[key] = key = self.parents.get(parent, parent)
        return key

    def join(self, one: int, other: int) -> None:
        """State that two labels are one thing."""
        one, other = self.root(one), self.root(other)
        if one != other:
            low, high = min(one, other), max(one, other)
            self.parents[high] = low
            if high in self.items:
                self.items.setdefault(low, []).extend(self.items.pop(high))

    def join_rows(self, above: npt.NDArray[np.int64], below: I32) -> None:
        """Join labels at the same places; those above have their offset, 0 is nothing."""
        shared = (above > 0) & (below > 0)
        pairs = np.stack([above[shared], below[shared] + self.offset], axis=1)
        for one, other in np.unique(pairs, axis=0).tolist():
            self.join(one, other)

    def add(self, label: int, item: Item) -> None:
        """Add what the strip shows of a label."""
        self.items.setdefault(self.root(label + self.offset), []).append(item)

    def complete(self, open_labels: npt.NDArray[np.int64]) -> Iterator[list[Item]]:
        """Yield and forget the items of the things that the next strip cannot touch."""
        still_open = {self.root(label) for label in np.unique(open_labels).tolist() if label}
        for key in [key for key in self.items if key not in still_open]:
            yield self.items.pop(key)


@dataclass(frozen=True, eq=False, slots=True)
class _Strip:
    """Rows of a map, with as many above and below as an object can grow."""

    first: int
    """Of the array."""
    top: int
    """First row that is the strip's own."""
    bottom: int
    """One below its last row."""
    width: int

    @property
    def own(self) -> slice:
        """The strip's own rows in its arrays."""
        return slice(self.top - self.first, self.bottom - self.first)

    def seam(self, reach: int) -> slice:
        """Rows of the arrays that the next strip has as well."""
        return slice(max(0, self.bottom - reach - self.first), None)


def find_objects(
    structure_map: StructureMap,
    structures: Collection[str] | None = None,
    *,
    outside: Outside | None = None,
    strip_rows: int | None = None,
) -> Iterator[StructureObject]:
    """Yield the likely objects of a map, each as soon as it is complete.

    Parameters
    ----------
    structure_map : StructureMap
    structures : collection of str, optional
        Ids of structures; by default all of the map that are objects.
    outside : Outside, optional
        Where the slide holds no tissue; without it, only the slide's edge cuts objects.
    strip_rows : int, optional
        Rows read at once, which changes the order of the objects and nothing else.

    Yields
    ------
    StructureObject
        Of at least `MIN_AREA_UM2`; sort them by `StructureObject.first_pixel`.
    """
    frame = structure_map.frame
    wanted = [
        name
        for name in frame.structures
        if (structure(name).kind == "object" if structures is None else name in structures)
    ]
    reach = max(1, round(REACH_UM / min(frame.mpp)))
    finders = [_Finder.of(structure_map, name, reach, outside) for name in wanted]
    for strip in _strips(structure_map, reach, strip_rows):
        last = min(strip.bottom + reach, frame.height)
        core, likely, certain = (
            read_rows(layer, strip.first, last)
            for layer in (structure_map.core, structure_map.likely, structure_map.certain)
        )
        present = int(np.bitwise_or.reduce(likely, axis=None))
        for finder in finders:
            if present & int(finder.bit):
                masks = ((layer & finder.bit) != 0 for layer in (core, likely, certain))
                yield from finder.objects(strip, *masks)
            else:
                yield from finder.rest()
    for finder in finders:
        yield from finder.rest()


def _strips(structure_map: StructureMap, reach: int, strip_rows: int | None) -> Iterator[_Strip]:
    frame = structure_map.frame
    rows = strip_rows or max(4 * reach, STRIP_PX // frame.width)
    for top in range(0, frame.height, rows):
        yield _Strip(max(0, top - reach), top, min(top + rows, frame.height), frame.width)


@dataclass(slots=True)
class _Finder:
    """The objects of one structure, strip by strip."""

    name: str
    bit: np.uint16
    reach: int
    min_px: float
    size: tuple[int, int]
    outside: Outside | None
    joined: _Joined[_Piece] = field(default_factory=_Joined)
    cores_above: npt.NDArray[np.int64] | None = None
    """Labels of cores in the rows that the strip above shared with this."""
    rests_above: npt.NDArray[np.int64] | None = None
    """Labels of parts without a core in the last row above."""

    @classmethod
    def of(cls, of: StructureMap, name: str, reach: int, outside: Outside | None) -> Self:
        """Return the finder of a structure of a map."""
        frame = of.frame
        min_px = MIN_AREA_UM2.get(name, OTHER_MIN_AREA_UM2) / frame.pixel_um2
        return cls(name, frame.bit(name), reach, min_px, (frame.width, frame.height), outside)

    def objects(
        self, strip: _Strip, core: Flags, likely: Flags, certain: Flags
    ) -> Iterator[StructureObject]:
        """Take the next strip, and yield the objects that end in it."""
        joined = self.joined
        columns = _occupied_columns(likely)
        core, likely, certain = core[:, columns], likely[:, columns], certain[strip.own, columns]
        labels: I32
        labels, n_cores = ndimage.label(core & likely)
        if self.cores_above is not None:
            joined.join_rows(self.cores_above[:, columns], labels[: len(self.cores_above)])
        seam = _full_width(labels[strip.seam(self.reach)], columns, strip.width, joined.offset)
        own = _grow(labels, likely, self.reach)[strip.own]
        rests, n_rests = ndimage.label(likely[strip.own] & (own == 0))
        rests[rests > 0] += n_cores
        if self.rests_above is not None:
            joined.join_rows(self.rests_above[columns], rests[0])
        own += rests
        for label, box in enumerate(ndimage.find_objects(own), start=1):
            if box is not None:
                self._add(label, box, own, certain, (strip.top, columns.start))
        last = _full_width(rests[-1:], columns, strip.width, joined.offset)
        yield from self._complete(np.concatenate([seam.ravel(), last.ravel()]))
        self.cores_above, self.rests_above = seam, last[0]
        joined.offset += n_cores + n_rests

    def rest(self) -> Iterator[StructureObject]:
        """Yield what is open, since nothing follows below."""
        self.cores_above = self.rests_above = None
        yield from self._complete(np.zeros(0, np.int64))

    def _add(
        self, label: int, box: Slices, own: I32, certain: Flags, corner: tuple[int, int]
    ) -> None:
        mask = own[box] == label
        n_certain = int(np.count_nonzero(mask & certain[box]))
        piece = _Piece(corner[0] + box[0].start, corner[1] + box[1].start, mask, n_certain)
        self.joined.add(label, piece)

    def _complete(self, open_labels: npt.NDArray[np.int64]) -> Iterator[StructureObject]:
        for pieces in self.joined.complete(open_labels):
            n_px = sum(int(np.count_nonzero(piece.mask)) for piece in pieces)
            if n_px >= self.min_px:
                yield self._object(pieces, n_px)

    def _object(self, pieces: list[_Piece], n_px: int) -> StructureObject:
        top, left = min(one.top for one in pieces), min(one.left for one in pieces)
        bottom = max(one.top + one.mask.shape[0] for one in pieces)
        right = max(one.left + one.mask.shape[1] for one in pieces)
        mask = np.zeros((bottom - top, right - left), np.bool_)
        for one in pieces:
            rows = slice(one.top - top, one.top - top + one.mask.shape[0])
            mask[rows, one.left - left : one.left - left + one.mask.shape[1]] |= one.mask
        width, height = self.size
        at_border = top == 0 or left == 0 or bottom == height or right == width
        touches = at_border or (self.outside is not None and self.outside.cuts(mask, left, top))
        certainty = sum(one.n_certain for one in pieces) / n_px
        return StructureObject(self.name, left, top, mask, certainty, touches)


def count_possible(structure_map: StructureMap, strip_rows: int | None = None) -> dict[str, int]:
    """Count the objects that are possible only: connected areas without a likely pixel.

    Returns
    -------
    dict
        By structure, for the objects of the map; of at least `MIN_AREA_UM2`.
    """
    frame = structure_map.frame
    names = [name for name in frame.structures if structure(name).kind == "object"]
    found = dict.fromkeys(names, 0)
    joined: dict[str, _Joined[tuple[int, int]]] = {name: _Joined() for name in names}
    above: dict[str, npt.NDArray[np.int64]] = {}
    for strip in _strips(structure_map, 0, strip_rows):
        possible = read_rows(structure_map.possible, strip.top, strip.bottom)
        likely = read_rows(structure_map.likely, strip.top, strip.bottom)
        for name in names:
            bit, these = frame.bit(name), joined[name]
            labels, n = ndimage.label((possible & bit) != 0)
            if name in above:
                these.join_rows(above[name], labels[0])
            n_px = np.bincount(labels.ravel(), minlength=n + 1)
            n_likely = np.bincount(labels[(likely & bit) != 0], minlength=n + 1)
            for label in range(1, n + 1):
                these.add(label, (int(n_px[label]), int(n_likely[label])))
            above[name] = np.where(labels[-1] > 0, labels[-1].astype(np.int64) + these.offset, 0)
            found[name] += _n_possible(these.complete(above[name]), name, frame.pixel_um2)
            these.offset += n
    for name in names:
        rest = joined[name].complete(np.zeros(0, np.int64))
        found[name] += _n_possible(rest, name, frame.pixel_um2)
    return found


def _n_possible(parts: Iterator[list[tuple[int, int]]], name: str, pixel_um2: float) -> int:
    least = MIN_AREA_UM2.get(name, OTHER_MIN_AREA_UM2) / pixel_um2
    sums = [tuple(map(sum, zip(*part, strict=True))) for part in parts]
    return sum(n_px >= least and n_likely == 0 for n_px, n_likely in sums)


def _occupied_columns(mask: Flags) -> slice:
    columns = np.flatnonzero(mask.any(axis=0))
    return slice(int(columns[0]), int(columns[-1]) + 1)


def _full_width(labels: I32, columns: slice, width: int, offset: int) -> npt.NDArray[np.int64]:
    """Return labels with their offset, in all columns of the map."""
    found = np.zeros((len(labels), width), np.int64)
    found[:, columns] = np.where(labels > 0, labels.astype(np.int64) + offset, 0)
    return found


def _grow(labels: I32, likely: Flags, reach: int) -> I32:
    """Return labels grown within the likely pixels, each step in reading order."""
    padded = np.pad(labels, 1)  # so that every pixel has four neighbours
    free = np.pad(likely, 1) & (padded == 0)
    front = np.flatnonzero(padded).astype(np.int32)
    for _ in range(reach):
        front = _grow_once(padded.reshape(-1), free.reshape(-1), front, padded.shape[1])
        if not len(front):
            break
    return padded[1:-1, 1:-1]


@compiled
def _grow_once(labels: I32, free: Flags, front: I32, width: int) -> I32:
    """Label the free neighbours of pixels, and return them."""
    grown = np.empty(4 * len(front), np.int32)
    n = 0
    for place in front:
        for step in (-width, -1, 1, width):
            if free[place + step]:
                free[place + step] = False
                labels[place + step] = labels[place]
                grown[n] = place + step
                n += 1
    return grown[:n].copy()
