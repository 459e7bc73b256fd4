"""Which structures each pixel of a slide belongs to, as bits in files.

The arrays are mapped from disk: memory stays flat with the slide, and glass takes no space.
"""

import json
import mmap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glomerulab.errors import GlomerulabError
from glomerulab.geometry import Point
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.structures.classes import MAX_STRUCTURES

__all__ = [
    "CORE",
    "LAYERS",
    "Bits",
    "MapFrame",
    "StructureMap",
    "create_map",
    "open_map",
    "read_rows",
    "release",
]

Bits = npt.NDArray[np.uint16]

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
    """Create an empty map in a folder; writing to its arrays writes the files."""
    make_folder(folder)
    shape = (frame.height, frame.width)
    arrays = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint16, shape=shape
        )
        for name in (*LAYERS, CORE)
    }
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
        raise GlomerulabError(
            f"the structure map cannot be read ({error}); run `glomerulab segment` again",
            where=str(folder),
        ) from error
    return StructureMap(frame, **arrays)


def read_rows(layer: Bits, start: int, stop: int) -> Bits:
    """Return a copy of rows; what the system read of the file does not stay in memory."""
    rows = np.array(layer[start:stop])
    release(layer)
    return rows


def release(layer: Bits) -> None:
    """Take what was read or written of a layer's file out of this process's memory."""
    file = layer.base
    if isinstance(file, mmap.mmap):
        file.madvise(mmap.MADV_DONTNEED)


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
    if array.shape != (frame.height, frame.width) or array.dtype != np.uint16:
        raise ValueError(f"{name}.npy is of another size")
    return array
