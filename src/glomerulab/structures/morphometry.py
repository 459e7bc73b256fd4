r"""Sizes of single objects in micrometres, each with the error that the map's resolution brings.

A border is known to half a pixel of the map, :math:`\delta`. Moved outward by that everywhere, an
object of area :math:`A` and perimeter :math:`P` (outline and holes) changes by
:math:`\Delta A = P \delta`. From it follow

* the equivalent diameter :math:`d = 2 \sqrt{A / \pi}`, :math:`\Delta d = \Delta A / \sqrt{\pi A}`,
  which is :math:`2 \delta` for a disc;
* a share :math:`q = B / A`, :math:`\Delta q = q (\Delta A / A + \Delta B / B)`;
* a difference of areas, the sum of both errors;
* the medial diameter, the mean over the medial axis of twice its distance to the border, each
  point weighted by the area of its circle, :math:`6 \delta`, since the axis lies on a pixel beside
  the true one and has spurs (the largest difference of 1,200 discs was :math:`5.3 \delta`);
* the thickness of a wall between two borders, :math:`2 \delta`.

What the segmenter takes for the structure is in none of these errors.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from shapely import Polygon
from skimage.morphology import skeletonize

from glomerulab.runtime.jit import Flags
from glomerulab.structures.instances import StructureObject
from glomerulab.structures.maps import MapFrame, StructureMap, read_window
from glomerulab.structures.tissue import MIN_LUMEN_UM2

__all__ = [
    "MAX_AXIS_PX",
    "MEASURES",
    "MIN_ARTERY_UM",
    "Measure",
    "MeasuredObject",
    "glomerulus_measures",
    "part_mask",
    "shape_measures",
    "tube_measures",
]

MEASURES = (
    "area_um2",
    "equivalent_diameter_um",
    "medial_diameter_um",
    "wall_um",
    "lumen_area_um2",
    "lumen_share",
    "tuft_area_um2",
    "tuft_share",
    "bowman_space_um2",
    "sclerosed_share",
    "n_nuclei",
    "nuclei_per_mm2",
)
"""Names of the measures, in the order of tables; shares are from 0 to 1, of the object's area."""
MAX_AXIS_PX = 1 << 22
"""Larger boxes get no medial axis: they are several objects that were not parted."""
MIN_ARTERY_UM = 45.0
"""Equivalent diameter from which a vessel counts as an artery; arterioles are narrower."""

Floats = npt.NDArray[np.float64]


class Measure(NamedTuple):
    """A number and its error by resolution; None where resolution is not what limits it."""

    value: float
    error: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class MeasuredObject:
    """An object of a slide with its outline and measures."""

    object_id: str
    """Structure and number in reading order, such as ``glomerulus-12``."""
    structure: str
    polygon: Polygon
    """In level-0 pixels."""
    certainty: float
    """Share of its pixels that are certain, from 0 to 1."""
    touches_edge: bool
    in_cortex: bool | None
    """Whether at least half of it lies in the likely cortex; None where that is unknown."""
    measures: Mapping[str, Measure]
    """By name, see `MEASURES`; one that cannot be taken is absent."""


def shape_measures(of: StructureObject, polygon: Polygon, frame: MapFrame) -> dict[str, Measure]:
    """Return area and equivalent diameter of an object.

    Parameters
    ----------
    of : StructureObject
    polygon : Polygon
        Its outline in level-0 pixels.
    frame : MapFrame
        Of the map that holds it.
    """
    um_per_px = frame.mpp[0] / frame.scale[0]
    area = np.count_nonzero(of.mask) * frame.pixel_um2
    error = polygon.length * um_per_px * _half_pixel(frame)
    diameter = 2 * math.sqrt(area / math.pi)
    return {
        "area_um2": Measure(area, error),
        "equivalent_diameter_um": Measure(diameter, error / math.sqrt(math.pi * area)),
    }


def glomerulus_measures(
    of: StructureObject, area: Measure, structure_map: StructureMap
) -> dict[str, Measure]:
    """Return tuft, Bowman's space and sclerosed share of a glomerulus, as far as the map knows."""
    found = {}
    frame = structure_map.frame
    if "tuft" in frame.assessed:
        tuft = part_mask(of, "tuft", structure_map)
        tuft_area = _area(tuft, frame)
        found["tuft_area_um2"] = tuft_area
        found["tuft_share"] = _share(tuft_area, area)
        error = _sum_of_errors(area, tuft_area)
        found["bowman_space_um2"] = Measure(area.value - tuft_area.value, error)
    if "sclerosed_glomerulus" in frame.assessed:
        sclerosed = part_mask(of, "sclerosed_glomerulus", structure_map)
        found["sclerosed_share"] = _share(_area(sclerosed, frame), area)
    return found


def part_mask(of: StructureObject, structure_id: str, structure_map: StructureMap) -> Flags:
    """Return where another structure is likely within an object, in its box."""
    height, width = of.mask.shape
    box = read_window(structure_map.likely, of.top, of.top + height, of.left, of.left + width)
    found: Flags = (box & structure_map.frame.bit(structure_id)) != 0
    return found & of.mask


def tube_measures(
    of: StructureObject, polygon: Polygon, light: Flags | None, frame: MapFrame
) -> dict[str, Measure]:
    """Return diameter, wall and lumen of a tubule or an artery.

    Parameters
    ----------
    polygon : Polygon
        Its outline in level-0 pixels; holes are taken for lumen.
    light : ndarray of bool, optional
        Where the slide is as light as glass, in the object's box; None without the slide.
    """
    if of.mask.size > MAX_AXIS_PX:
        return {}
    delta = _half_pixel(frame)
    whole = ndimage.binary_fill_holes(of.mask) if polygon.interiors else of.mask
    spacing = (frame.mpp[1], frame.mpp[0])
    # To the centre of the nearest pixel outside.
    distance = ndimage.distance_transform_edt(np.pad(whole, 1), sampling=spacing)[1:-1, 1:-1]
    axis = skeletonize(whole)  # type: ignore[no-untyped-call]
    # It lies on whole pixels, beside the true one, and has spurs into corners, whose circles are
    # small.
    along = ndimage.maximum_filter(distance, 3)[axis]
    radius = float(np.average(along, weights=along**2)) - delta
    found = {"medial_diameter_um": Measure(2 * radius, 6 * delta)}
    if light is not None:
        lumen = _lumen(whole, light, frame) | (whole & ~of.mask)
        found |= _lumen_measures(lumen, distance, _area(whole, frame), frame)
    return found


def _lumen_measures(
    lumen: Flags, distance: Floats, area: Measure, frame: MapFrame
) -> dict[str, Measure]:
    delta = _half_pixel(frame)
    lumen_area = _area(lumen, frame)
    found = {"lumen_area_um2": lumen_area, "lumen_share": _share(lumen_area, area)}
    if lumen_area.value:
        # From the centre of a pixel within to that of one outside: half a pixel too much at both.
        border = distance[lumen & ~ndimage.binary_erosion(lumen)]
        found["wall_um"] = Measure(float(border.mean()) - 2 * delta, 2 * delta)
    return found


def _lumen(whole: Flags, light: Flags, frame: MapFrame) -> Flags:
    """Return the light areas within an object, without those that its border cuts."""
    labels, n = ndimage.label(light & whole)
    is_lumen = np.bincount(labels.ravel(), minlength=n + 1) * frame.pixel_um2 >= MIN_LUMEN_UM2
    is_lumen[0] = False
    is_lumen[np.unique(labels[whole & ~ndimage.binary_erosion(whole)])] = False
    lumen: Flags = is_lumen[labels]
    return lumen


def _half_pixel(frame: MapFrame) -> float:
    return sum(frame.mpp) / 4


def _area(mask: Flags, frame: MapFrame) -> Measure:
    """Return an area with its error; the perimeter counts the pixels' sides between in and out.

    Sides overestimate the length of an oblique border by up to 4 / pi on average over directions,
    by which they are divided.
    """
    padded = np.pad(mask, 1)
    down = np.count_nonzero(padded[1:] != padded[:-1]) * frame.mpp[0]
    across = np.count_nonzero(padded[:, 1:] != padded[:, :-1]) * frame.mpp[1]
    perimeter = (down + across) * math.pi / 4
    return Measure(np.count_nonzero(mask) * frame.pixel_um2, perimeter * _half_pixel(frame))


def _share(part: Measure, of: Measure) -> Measure:
    share = part.value / of.value
    own = (part.error or 0.0) / of.value
    return Measure(share, own + share * (of.error or 0.0) / of.value)


def _sum_of_errors(*measures: Measure) -> float:
    return sum(one.error or 0.0 for one in measures)
