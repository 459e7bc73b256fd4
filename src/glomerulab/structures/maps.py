"""Which structures each pixel of a slide belongs to, as bits in files.

Memory stays flat with the slide, and glass takes no space. The arrays are mapped from disk, but the
package reads and writes the files (`read_rows`, `read_window`, `write_window`): where the disk is
full, use of the mapping kills the process without an error.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from glomerulab.errors import GlomerulabError
from glomerulab.geometry import Point
from glomerulab.runtime.files import NO_ROOM, atomic_write, make_folder, output_errors
from glomerulab.structures.classes import MAX_STRUCTURES

__all__ = [
    "CORE",
    "LAYERS",
    "Bits",
    "MapFrame",
    "StructureMap",
    "create_map",
    "new_layer",
    "no_room",
    "open_map",
    "read_rows",
    "read_window",
    "write_window",
]

Bits = npt.NDArray[np.uint16]
Pixels = TypeVar("Pixels", bound=npt.NDArray[Any])

LAYERS = {"possible": 0.3, "likely": 0.5, "certain": 0.7}
"""Probability from which a layer sets the bit of a structure; their sizes give ranges."""
CORE = "core"
"""The layer of the inner parts of objects, which part those that touch."""
FRAME_FILE = "map.json"


@dataclass(frozen=True, slots=True)
class MapFrame:
    """What the pixels of a map are."""

    structures: tuple[str, ...]
    """Bit k of a pixel stands for structure k."""
    width: int
    height: int
    mpp: tuple[float, float]
    """Micrometres per pixel of the map, x and y."""
    scale: tuple[float, float]
    """Level-0 pixels per pixel of the map, x and y."""
    slide_size: tuple[int, int]
    """Width and height of level 0."""
    not_assessed: tuple[str, ...] = ()
    """Structures of which nothing is counted or measured, since the segmenter hardly finds them."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for more structures than bits."""
        if not 0 < len(self.structures) <= MAX_STRUCTURES:
            raise ValueError(f"a map has 1 to {MAX_STRUCTURES} structures")

    def bit(self, structure_id: str) -> np.uint16:
        """Return the bit of a structure."""
        return np.uint16(1 << self.structures.index(structure_id))

    @property
    def assessed(self) -> tuple[str, ...]:
        """Structures that are counted and measured."""
        return tuple(name for name in self.structures if name not in self.not_assessed)

    @property
    def pixel_um2(self) -> float:
        """Area of a pixel, µm²."""
        return self.mpp[0] * self.mpp[1]

    def to_slide(self, column: float, row: float) -> Point:
        """Return the level-0 point of a corner of the map's grid."""
        return column * self.scale[0], row * self.scale[1]


@dataclass(frozen=True, eq=False, slots=True)
class StructureMap:
    """Bits of shape (height, width); see `LAYERS`."""

    frame: MapFrame
    possible: Bits
    likely: Bits
    certain: Bits
    core: Bits


def create_map(folder: Path, frame: MapFrame) -> StructureMap:
    """Create an empty map in a folder, for `write_window`.

    Raises
    ------
    GlomerulabError
        If the disk has no room.
    """
    make_folder(folder)
    shape = (frame.height, frame.width)
    arrays = {name: new_layer(folder / f"{name}.npy", np.uint16, shape) for name in (*LAYERS, CORE)}
    with atomic_write(folder / FRAME_FILE) as file:
        file.write_text(json.dumps(asdict(frame), indent=2) + "\n")
    return StructureMap(frame, **arrays)


def open_map(folder: Path) -> StructureMap:
    """Open a map for reading.

    Raises
    ------
    GlomerulabError
        If the folder holds no map, or a damaged one.
    """
    try:
        frame = _read_frame(folder / FRAME_FILE)
        arrays = {name: _read_layer(folder, name, frame) for name in (*LAYERS, CORE)}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(folder, error) from error
    return StructureMap(frame, **arrays)


def new_layer(file: Path, kind: type[np.generic], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an array of zeros in a new file, for `write_window`; errors as `create_map`."""
    with _room_errors(file):
        return np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)


def read_rows(layer: Pixels, start: int, stop: int) -> Pixels:
    """Return a copy of rows, as `read_window`."""
    return read_window(layer, start, stop, 0, layer.shape[1])


def read_window(layer: Pixels, top: int, bottom: int, left: int, right: int) -> Pixels:
    """Return a copy of a part of a layer, which must be whole, in a file or in memory.

    Raises
    ------
    GlomerulabError
        If the file is shorter than the layer, or cannot be read.
    """
    if not isinstance(layer, np.memmap):
        return layer[top:bottom, left:right].copy()  # type: ignore[return-value]
    found = np.zeros((bottom - top, right - left), layer.dtype)
    if right - left == layer.shape[1]:
        found = found.reshape(1, -1)  # the rows follow each other in the file
    path = _file(layer)
    try:
        with path.open("rb", buffering=0) as file:
            _check_whole(layer)
            for number, row in enumerate(found):
                _fill(row.view(np.uint8).data, file.fileno(), _place(layer, top + number, left))
    except (OSError, EOFError) as error:
        raise _unreadable(path.parent, error) from error
    return found.reshape(bottom - top, right - left)  # type: ignore[return-value]


def write_window(
    layer: npt.NDArray[Any],
    top: int,
    left: int,
    values: npt.NDArray[Any],
    *,
    rows: npt.NDArray[np.bool_] | None = None,
) -> None:
    """Write a part of a layer, which must be whole, in a file or in memory.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
    rows : ndarray of bool, optional
        Which of the rows to write, by default all: zeros that are not written take no space.

    Raises
    ------
    GlomerulabError
        If the disk has no room; an `OutputError` if it takes nothing at all.
    """
    height, width = values.shape
    rows = np.ones(height, bool) if rows is None else rows
    if not isinstance(layer, np.memmap):
        layer[top : top + height, left : left + width][rows] = values[rows]
        return
    values, path = np.ascontiguousarray(values, layer.dtype), _file(layer)
    with _room_errors(path), path.open("r+b", buffering=0) as file:
        _check_whole(layer)
        content, n_bytes = values.reshape(-1).view(np.uint8).data, width * values.itemsize
        for number in np.flatnonzero(rows).tolist():
            waiting = content[number * n_bytes : (number + 1) * n_bytes]
            place = _place(layer, top + number, left)
            while waiting:  # the last bytes that fit may be a part
                n_written = os.pwrite(file.fileno(), waiting, place)
                waiting, place = waiting[n_written:], place + n_written


def _fill(waiting: memoryview, file: int, place: int) -> None:
    """Read until the buffer is full; a network file system may give less at a time."""
    while waiting:
        n_read = os.preadv(file, [waiting], place)
        if n_read == 0:
            raise EOFError("a file ends early")
        waiting, place = waiting[n_read:], place + n_read


def _check_whole(layer: np.memmap[Any, Any]) -> None:
    """Check that a layer ends where its file does, which a part of a layer does not."""
    path = _file(layer)
    end, n_bytes = layer.offset + layer.nbytes, path.stat().st_size
    if n_bytes < end:
        raise _unreadable(path.parent, f"{path.name} has {n_bytes} bytes in place of {end}")
    assert n_bytes == end
    assert layer.flags.c_contiguous


@contextmanager
def _room_errors(file: Path) -> Iterator[None]:
    """Raise that the disk has no room as an error of this slide; others may be smaller."""
    with output_errors("the map of the slide's structures cannot be written", file):
        try:
            yield
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise no_room(file, str(error.strerror)) from error


def no_room(file: Path, reason: str) -> GlomerulabError:
    """Return the error of a slide whose map the disk has no room for."""
    return GlomerulabError(
        f"the disk has no room for the map of the slide's structures ({reason}); make room, and "
        "run the same command again",
        where=str(file.parent.parent),
    )


def _unreadable(folder: Path, reason: object) -> GlomerulabError:
    return GlomerulabError(
        f"the structure map cannot be read ({reason}); run `glomerulab segment` again",
        where=str(folder),
    )


def _file(layer: np.memmap[Any, Any]) -> Path:
    return Path(str(layer.filename))


def _place(layer: np.memmap[Any, Any], row: int, column: int) -> int:
    """Return at which byte of its file a pixel is."""
    place: int = layer.offset + (row * layer.shape[-1] + column) * layer.itemsize
    return place


def _read_frame(path: Path) -> MapFrame:
    values: Any = json.loads(path.read_bytes())
    if not isinstance(values, dict):
        raise TypeError(f"{path.name} is no JSON object")
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return MapFrame(**fields)


def _read_layer(folder: Path, name: str, frame: MapFrame) -> Bits:
    array: Bits = np.load(folder / f"{name}.npy", mmap_mode="r")
    is_kind = array.dtype == np.uint16 and array.flags.c_contiguous
    if array.shape != (frame.height, frame.width) or not is_kind:
        raise ValueError(f"{name}.npy is of another size or kind")
    return array
