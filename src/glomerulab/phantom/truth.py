"""The true structures of a slide: outlines of its masks, and their sizes in the cortex."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from contourpy import FillType, contour_generator
from scipy import ndimage
from shapely import get_coordinates
from shapely.geometry import Polygon

from glomerulab.geometry import Point, Region
from glomerulab.structures.classes import KNOWN_STRUCTURES
from glomerulab.structures.morphometry import MIN_ARTERY_UM

STRUCTURES = tuple(one.id for one in KNOWN_STRUCTURES)
"""Bit k of a mask stands for structure k."""

Masks = npt.NDArray[np.uint16]
Objects = npt.NDArray[np.int32]

MIN_PIECE_UM2 = 20.0
"""Smaller pieces are left out of the outlines."""
TOLERANCE_PX = 0.3


def bit_of(structure: str) -> int:
    """Return the bit of a structure in a mask."""
    return 1 << STRUCTURES.index(structure)


def outlines(mask: npt.NDArray[np.bool_], *, min_px: float = 0.0) -> list[Polygon]:
    """Return the pieces of a mask with their holes, in pixels, (0, 0) at the upper left corner."""
    padded = np.pad(mask, 1).astype(np.float64)
    contours = contour_generator(z=padded, name="serial", fill_type=FillType.OuterOffset)
    pieces = []
    for points, offsets in zip(*contours.filled(0.5, np.inf), strict=True):
        # The pad moves the centre of the first pixel to 1; its centre lies at 0.5.
        rings = [points[a:b] - 0.5 for a, b in pairwise(offsets)]
        piece = Polygon(rings[0], rings[1:])
        if piece.area >= min_px:
            pieces.append(piece)
    return pieces


def structure_regions(masks: Masks, objects: Objects, prefix: str, *, mpp: float) -> list[Region]:
    """Return the outlines of all structures, one region per object or piece of an area.

    Parameters
    ----------
    masks : ndarray of uint16, shape (H, W)
    objects : ndarray of int32, shape (H, W)
        0 for none.
    prefix : str
        First part of the regions' ids.
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    list of Region
        Level-0 pixels. The label is the structure's id; an atrophic tubule is there twice, as a
        tubule and as an atrophic one, and a sclerosed glomerulus likewise.
    """
    regions = []
    for structures, mask, offset, name in _parts(masks, objects):
        pieces = outlines(mask, min_px=max(MIN_PIECE_UM2 / mpp**2, 4.0))
        for number, piece in enumerate(pieces, start=1):
            outline, *holes = _rings(piece, offset)
            end = f"-{number}" if number > 1 or not name else ""
            for structure in structures:
                region_id = f"{prefix}-{structure}{name}{end}"
                regions.append(Region(region_id, outline, (structure,), holes=tuple(holes)))
    return regions


def _rings(piece: Polygon, offset: tuple[int, int]) -> list[tuple[Point, ...]]:
    """Return a simplified outline and its holes, moved by an offset."""
    simple = piece.simplify(TOLERANCE_PX, preserve_topology=False)  # three times as fast
    if not isinstance(simple, Polygon) or not simple.is_valid:
        simple = piece
    return [
        tuple(map(tuple, (get_coordinates(ring)[:-1] + offset).tolist()))
        for ring in (simple.exterior, *simple.interiors)
    ]


def _parts(
    masks: Masks, objects: Objects
) -> Iterator[tuple[list[str], npt.NDArray[np.bool_], tuple[int, int], str]]:
    """Yield structures, mask, offset (x, y) and end of the name of every area and object."""
    for one in KNOWN_STRUCTURES:
        if one.kind == "area":
            yield [one.id], (masks & bit_of(one.id)) > 0, (0, 0), ""
    kinds = [(one.id, bit_of(one.id)) for one in KNOWN_STRUCTURES if one.kind == "object"]
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is None:
            continue
        mask = objects[place] == number
        bits = int(masks[place][mask][0])
        found = [name for name, bit in kinds if bits & bit]
        if found:
            yield found, mask, (place[1].start, place[0].start), f"-{number:05d}"


def true_shares(masks: Masks, objects: Objects, *, mpp: float) -> dict[str, Any]:
    """Return the sizes of the structures of a slide.

    Returns
    -------
    dict
        ``<structure>_mm2`` over the whole slide; ``atrophy_share`` and ``fibrosis_share`` of the
        cortex and ``atrophy_of_tubules`` of the tubules' area in it, 0 to 1; the numbers of
        ``glomeruli``, of ``sclerosed_glomeruli`` among them, and of ``arteries`` of at least 45 µm;
        ``glomeruli_per_mm2`` of cortex.
    """
    bits, counts = np.unique(masks, return_counts=True)
    has = {one: (bits & bit_of(one)) > 0 for one in STRUCTURES}
    px_mm2 = (mpp / 1000.0) ** 2
    area = {one: float(counts[has[one]].sum()) * px_mm2 for one in STRUCTURES}
    in_cortex = {
        one: float(counts[has[one] & has["cortex"]].sum()) * px_mm2
        for one in ("tubule", "atrophic_tubule", "fibrosis")
    }
    cortex = area["cortex"]
    n = {"glomeruli": 0, "sclerosed_glomeruli": 0, "arteries": 0}
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is None:
            continue
        mask = objects[place] == number
        kind = int(masks[place][mask][0])
        n["glomeruli"] += bool(kind & bit_of("glomerulus"))
        n["sclerosed_glomeruli"] += bool(kind & bit_of("sclerosed_glomerulus"))
        wide = 2.0 * np.sqrt(mask.sum() / np.pi) * mpp >= MIN_ARTERY_UM
        n["arteries"] += bool(wide and kind & bit_of("artery"))
    return {
        **{f"{one}_mm2": round(area[one], 6) for one in STRUCTURES},
        "atrophy_share": round(in_cortex["atrophic_tubule"] / cortex, 5),
        "fibrosis_share": round(in_cortex["fibrosis"] / cortex, 5),
        "atrophy_of_tubules": round(
            in_cortex["atrophic_tubule"] / max(in_cortex["tubule"], px_mm2), 5
        ),
        **n,
        "glomeruli_per_mm2": round(n["glomeruli"] / cortex, 4),
    }
