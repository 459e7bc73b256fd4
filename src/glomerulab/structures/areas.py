"""Areas and counts of the structures at the three layers of a map: the summary of a slide."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from glomerulab.runtime.jit import I64, U16, compiled
from glomerulab.structures.instances import count_possible
from glomerulab.structures.maps import StructureMap, read_rows
from glomerulab.structures.morphometry import MeasuredObject
from glomerulab.structures.summary import (
    EITHER,
    HardlyFound,
    Range,
    SlideSummary,
    StructureSummary,
)

__all__ = ["area_summaries", "quotient", "summarize"]

STRIP_PX = 1 << 23
UM2_PER_MM2 = 1e6
POSSIBLE, LIKELY, CERTAIN = 1, 2, 3
"""Level of a structure at a pixel; 0 is absent."""
UNCERTAIN = 0.5
"""Share of certain pixels below which an object is not counted as certain."""
NO_CORTEX = "The segmenter does not know the cortex, so no share of it and no density is given."


def summarize(
    structure_map: StructureMap,
    objects: Iterable[MeasuredObject],
    *,
    slide_id: str,
    stain: str | None,
    notes: Sequence[str] = (),
    not_assessed: Mapping[str, HardlyFound] | None = None,
) -> SlideSummary:
    """Return areas, counts and shares of a slide, of the structures that the frame assesses.

    An object counts as certain if at least half of its pixels are; possible objects are the likely
    ones and the areas without a likely pixel.
    """
    frame = structure_map.frame
    by_structure: dict[str, list[MeasuredObject]] = {}
    for one in objects:
        by_structure.setdefault(one.structure, []).append(one)
    possible = count_possible(structure_map)
    structures = {
        name: of
        if name not in possible
        else _with_counts(of, by_structure.get(name, []), possible[name])
        for name, of in area_summaries(structure_map).items()
    }
    missing = [] if "cortex" in frame.structures else [NO_CORTEX]
    glomeruli, cortex = structures.get("glomerulus"), structures.get("cortex")
    density = None
    if glomeruli and cortex and glomeruli.n_in_cortex:
        density = quotient(glomeruli.n_in_cortex, cortex.area_mm2)
    return SlideSummary(
        slide_id=slide_id,
        stain=stain,
        mpp=frame.mpp,
        structures=structures,
        glomeruli_per_mm2=density,
        notes=(*notes, *missing),
        not_assessed=not_assessed or {},
    )


def _with_counts(
    of: StructureSummary, objects: Sequence[MeasuredObject], n_possible: int
) -> StructureSummary:
    inside = None
    if of.cortex_mm2 is not None:
        # Where an object lies that is possible only is not known.
        inside = _counted([one for one in objects if one.in_cortex], n_possible)
    n_at_edge = sum(one.touches_edge for one in objects)
    return replace(of, n=_counted(objects, n_possible), n_in_cortex=inside, n_at_edge=n_at_edge)


def _counted(objects: Sequence[MeasuredObject], n_possible: int) -> Range:
    n_certain = sum(one.certainty >= UNCERTAIN for one in objects)
    return Range(n_certain, len(objects), len(objects) + n_possible)


def area_summaries(
    structure_map: StructureMap, *, strip_rows: int | None = None
) -> dict[str, StructureSummary]:
    """Return the areas of each assessed structure of a map, in all and within the cortex.

    Shares of the cortex are, for low and high, the lowest of the certain and the highest of the
    possible structure in the certain, likely and possible cortex; where the map knows both
    atrophic tubules and fibrosis, what either covers is added.
    """
    frame = structure_map.frame
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in frame.assessed}
    if {"atrophic_tubule", "fibrosis"} <= groups.keys():
        groups[EITHER] = ("atrophic_tubule", "fibrosis")
    has_cortex = "cortex" in groups
    # [group, level of the group, level of the cortex], pixels
    counts = _level_counts(structure_map, list(groups.values()), strip_rows)
    at_least = np.cumsum(counts[:, ::-1, ::-1], axis=1).cumsum(axis=2)[:, ::-1, ::-1]
    mm2 = at_least * frame.pixel_um2 / UM2_PER_MM2
    cortex = mm2[list(groups).index("cortex"), 1:, 0] if has_cortex else None
    return {name: _summary(of, cortex) for name, of in zip(groups, mm2, strict=True)}


def _summary(
    of: npt.NDArray[np.float64], cortex: npt.NDArray[np.float64] | None
) -> StructureSummary:
    area = Range(*(float(of[level, 0]) for level in (CERTAIN, LIKELY, POSSIBLE)))
    if cortex is None:
        return StructureSummary(area)
    inside = Range(*(float(of[level, LIKELY]) for level in (CERTAIN, LIKELY, POSSIBLE)))
    return StructureSummary(area, inside, _share(of[1:, 1:], cortex))


def _share(inside: npt.NDArray[np.float64], cortex: npt.NDArray[np.float64]) -> Range | None:
    """Return shares of areas [level of the structure, level of the cortex] in those cortices."""
    if not cortex[LIKELY - 1]:
        return None
    shares = inside[:, cortex > 0] / cortex[cortex > 0]
    likely = inside[LIKELY - 1, LIKELY - 1] / cortex[LIKELY - 1]
    return Range(float(shares[CERTAIN - 1].min()), float(likely), float(shares[0].max()))


def quotient(of: Range, by: Range) -> Range | None:
    """Return a number per area with its range; None where no area is likely."""
    if not by.likely:
        return None
    least = next(one for one in by if one > 0)
    return Range(of.low / by.high, of.likely / by.likely, of.high / least)


def _level_counts(
    structure_map: StructureMap, groups: Sequence[Sequence[str]], strip_rows: int | None
) -> I64:
    frame = structure_map.frame
    bits = np.array([sum(int(frame.bit(name)) for name in names) for names in groups], np.uint16)
    cortex = frame.bit("cortex") if "cortex" in frame.assessed else np.uint16(0)
    counts = np.zeros((len(groups), 4, 4), np.int64)
    rows = strip_rows or max(1, STRIP_PX // frame.width)
    for top in range(0, frame.height, rows):
        possible, likely, certain = (
            read_rows(layer, top, min(top + rows, frame.height)).reshape(-1)
            for layer in (structure_map.possible, structure_map.likely, structure_map.certain)
        )
        _count_levels((possible, likely, certain), bits, cortex, counts)
    return counts


@compiled
def _count_levels(
    layers: tuple[U16, U16, U16], groups: U16, cortex: np.uint16, counts: I64
) -> None:
    """Add the pixels of every group by its level and that of the cortex; absent ones are left."""
    possible, likely, certain = layers
    for place in range(len(possible)):
        some, more, most = possible[place], likely[place], certain[place]
        if some == 0:
            continue
        in_cortex = (some & cortex != 0) + (more & cortex != 0) + (most & cortex != 0)
        for group in range(len(groups)):
            bits = groups[group]
            if some & bits != 0:
                level = 1 + (more & bits != 0) + (most & bits != 0)
                counts[group, level, in_cortex] += 1
