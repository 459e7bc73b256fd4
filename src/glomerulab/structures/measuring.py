"""All objects of a map with their outlines and measures."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from glomerulab.runtime.jit import Flags
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import FloatArray, tissue_mask
from glomerulab.structures.instances import StructureObject, find_objects
from glomerulab.structures.maps import StructureMap
from glomerulab.structures.morphometry import (
    MAX_AXIS_PX,
    Measure,
    MeasuredObject,
    glomerulus_measures,
    part_mask,
    shape_measures,
    tube_measures,
)
from glomerulab.structures.nuclei import nuclei_of
from glomerulab.structures.polygons import object_polygon
from glomerulab.structures.tissue import find_outside

__all__ = ["measure_objects"]

BLOCK_PX = 512
N_BLOCKS = 256
"""Of light pixels in memory, 64 MiB."""
UM2_PER_MM2 = 1e6

TUBES = frozenset({"tubule", "atrophic_tubule", "artery"})


def measure_objects(
    structure_map: StructureMap, slide: Slide | None = None, *, stain: str | None = None
) -> tuple[list[MeasuredObject], list[str]]:
    """Find and measure the objects of a map.

    Parameters
    ----------
    structure_map : StructureMap
    slide : Slide, optional
        Open; its pixels give the tissue's edge, lumens and nuclei, which are left out without it.
    stain : str, optional
        The slide's; nuclei are counted where it has haematoxylin that can be separated.

    Returns
    -------
    list of MeasuredObject
        By structure in the order of the map, then in reading order.
    list of str
        Why a measure is missing, whole sentences.

    Raises
    ------
    MissingMppError, SlideError
        If the slide's pixels cannot be read.
    """
    frame = structure_map.frame
    outside = None if slide is None else find_outside(slide, frame)
    light = None
    if slide is not None and outside is not None:
        light = _Light(slide, structure_map, outside.white)
    rows = []
    for one in find_objects(structure_map, outside=outside):
        kept = one if one.structure == "glomerulus" else None  # the others' masks take memory
        place = frame.structures.index(one.structure), one.first_pixel
        rows.append((place, _measured(one, structure_map, light), kept))
    rows.sort(key=lambda row: row[0])
    numbers = Counter[str]()
    objects = []
    for _, measured, _ in rows:
        numbers[measured.structure] += 1
        name = f"{measured.structure}-{numbers[measured.structure]}"
        objects.append(replace(measured, object_id=name))
    glomeruli = {number: kept for number, (_, _, kept) in enumerate(rows) if kept is not None}
    if slide is None or not glomeruli:
        return objects, []
    note = _add_nuclei(objects, glomeruli, (slide, structure_map), stain)
    return objects, [note] if note else []


def _measured(
    one: StructureObject, structure_map: StructureMap, light: "_Light | None"
) -> MeasuredObject:
    frame = structure_map.frame
    polygon = object_polygon(one, frame)
    measures = shape_measures(one, polygon, frame)
    area = measures["area_um2"]
    if one.structure == "glomerulus":
        measures |= glomerulus_measures(one, area, structure_map)
    elif one.structure in TUBES:
        lit = None if light is None else light.within(one)
        measures |= tube_measures(one, polygon, lit, frame)
    in_cortex = None
    if "cortex" in frame.assessed:
        inside = part_mask(one, "cortex", structure_map)
        in_cortex = bool(2 * np.count_nonzero(inside) >= np.count_nonzero(one.mask))
    return MeasuredObject(
        one.structure, one.structure, polygon, one.certainty, one.touches_edge, in_cortex, measures
    )


def _add_nuclei(
    objects: list[MeasuredObject],
    glomeruli: Mapping[int, StructureObject],
    where: tuple[Slide, StructureMap],
    stain: str | None,
) -> str | None:
    """Add nuclei to the glomeruli among objects, given by their places; return why there are none.

    They are counted within the tuft where the map knows it, else within the capsule.
    """
    slide, structure_map = where
    ones = list(glomeruli.values())
    part = "tuft" if "tuft" in structure_map.frame.assessed else "glomerulus"
    masks = [part_mask(one, part, structure_map) for one in ones]
    counts = nuclei_of(ones, masks, (slide, structure_map.frame), stain)
    if isinstance(counts, str):
        return counts
    for place, n in zip(glomeruli, counts, strict=True):
        measures = objects[place].measures
        area = measures["tuft_area_um2" if part == "tuft" else "area_um2"]
        nuclei = {"n_nuclei": Measure(n)}
        if area.value:
            density = n * UM2_PER_MM2 / area.value
            error = density * (area.error or 0.0) / area.value
            nuclei["nuclei_per_mm2"] = Measure(density, error)
        objects[place] = replace(objects[place], measures={**measures, **nuclei})
    return None


class _Light:
    """Where a slide is as light as glass, at the pixels of a map; read in blocks and kept."""

    def __init__(self, slide: Slide, structure_map: StructureMap, white: FloatArray) -> None:
        self._slide, self._frame, self._white = slide, structure_map.frame, white
        self._block = functools.lru_cache(N_BLOCKS)(self._read)

    def within(self, one: StructureObject) -> Flags | None:
        """Return the light pixels in the box of an object; None for one that is too large."""
        height, width = one.mask.shape
        if height * width > MAX_AXIS_PX:
            return None
        found = np.zeros((height, width), np.bool_)
        for row in range(one.top // BLOCK_PX, (one.top + height - 1) // BLOCK_PX + 1):
            for column in range(one.left // BLOCK_PX, (one.left + width - 1) // BLOCK_PX + 1):
                block = self._block(row, column)
                top, left = row * BLOCK_PX - one.top, column * BLOCK_PX - one.left
                rows = slice(max(0, top), min(height, top + block.shape[0]))
                columns = slice(max(0, left), min(width, left + block.shape[1]))
                found[rows, columns] = block[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ]
        return found

    def _read(self, row: int, column: int) -> Flags:
        frame = self._frame
        top, left = row * BLOCK_PX, column * BLOCK_PX
        height, width = min(BLOCK_PX, frame.height - top), min(BLOCK_PX, frame.width - left)
        corner = frame.to_slide(left, top)
        image = self._slide.read_grid(corner, (width, height), downsample=frame.scale)
        return ~tissue_mask(image, self._white)
