"""A label image of a map: one colour per structure, as a pyramid that OpenSlide and QuPath open."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from glomerulab.runtime.files import atomic_write
from glomerulab.structures.classes import KNOWN_STRUCTURES, in_drawing_order, structure
from glomerulab.structures.maps import MapFrame, StructureMap, read_rows

__all__ = ["label_values", "write_label_image"]

TILE_PX = 512
MICROMETRES_PER_CENTIMETRE = 10_000.0
REDUCED = 1
"""TIFF's NewSubfileType of a level below the first."""

Labels = npt.NDArray[np.uint8]


def label_values(frame: MapFrame) -> dict[str, int]:
    """Return the grey level of each structure of a map; 0 is none of them.

    Known structures have the same number in every map; those of the user's own follow.
    """
    known = {one.id: number for number, one in enumerate(KNOWN_STRUCTURES, start=1)}
    own = [name for name in in_drawing_order(frame.structures) if name not in known]
    values = known | {name: len(known) + number for number, name in enumerate(own, start=1)}
    return {name: values[name] for name in frame.structures}


def write_label_image(structure_map: StructureMap, path: Path) -> None:
    """Write the structure on top of each likely pixel as a tiled, pyramidal TIFF.

    Pixels are uint8 with a palette (`label_values`), compressed without loss; the description of
    the first page is JSON with the structures' values. A pixel of a smaller level is one of the
    map's, since the mean of two labels is another label.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    frame = structure_map.frame
    values = label_values(frame)
    look_up = _look_up(frame, values)
    with (
        atomic_write(path) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=frame.width * frame.height >= 1 << 31) as file,
    ):
        step = 1
        while True:
            height, width = max(1, frame.height // step), max(1, frame.width // step)
            across, down = (MICROMETRES_PER_CENTIMETRE / (mpp * step) for mpp in frame.mpp)
            file.write(
                _tiles(structure_map, step, (height, width), look_up),
                shape=(height, width),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="palette",
                colormap=_palette(values),
                compression="zlib",
                resolution=(across, down),
                resolutionunit="CENTIMETER",
                subfiletype=REDUCED if step > 1 else 0,
                description=json.dumps({"structures": values}) if step == 1 else None,
                metadata=None,
            )
            if max(height, width) <= TILE_PX:
                return
            step *= 2


def _look_up(frame: MapFrame, values: dict[str, int]) -> Labels:
    """Return the label of each combination of bits: that of the structure on top."""
    found = np.zeros(1 << 16, np.uint8)
    combinations = np.arange(1 << 16)
    for name in in_drawing_order(frame.structures):
        found[combinations & int(frame.bit(name)) != 0] = values[name]
    return found


def _palette(values: dict[str, int]) -> npt.NDArray[np.uint16]:
    palette = np.full((3, 256), 255 * 257, np.uint16)
    for name, value in values.items():
        palette[:, value] = np.array(structure(name).colour) * 257
    return palette


def _tiles(
    structure_map: StructureMap, step: int, size: tuple[int, int], look_up: Labels
) -> Iterator[Labels]:
    """Yield the tiles of a level, row by row, of every `step`-th pixel of the map."""
    height, width = size
    down, across = (
        np.minimum(np.arange(n) * step + step // 2, length - 1)
        for n, length in zip(size, structure_map.likely.shape, strict=True)
    )
    for top in range(0, height, TILE_PX):
        bottom = min(top + TILE_PX, height)
        rows = np.zeros((TILE_PX, -(-width // TILE_PX) * TILE_PX), np.uint8)
        for row, place in enumerate(down[top:bottom].tolist()):
            bits = read_rows(structure_map.likely, place, place + 1)[0]
            rows[row, :width] = look_up[bits[across]]
        for left in range(0, width, TILE_PX):
            yield rows[:, left : left + TILE_PX]
