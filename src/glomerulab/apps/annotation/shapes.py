"""What a shape drawn on a slide stands for, and which shapes can be stored."""

from collections.abc import Sequence
from dataclasses import replace

from glomerulab.apps.annotation.store.regions import RegionInput
from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.polygons import mended
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL
from glomerulab.structures.classes import find_structure

GLOMERULUS = "glomerulus"
GLOMERULI = frozenset({GLOMERULUS, "sclerosed_glomerulus"})


def structure_of(labels: Sequence[str]) -> str:
    """Return the id of the structure that a shape marks: a glomerulus unless its classes name one.

    So are boxes without a class, and shapes whose class is a lesion.
    """
    named = (find_structure(name) for name in labels)
    return next((one.id for one in named if one is not None), GLOMERULUS)


def is_glomerulus(labels: Sequence[str]) -> bool:
    """Return whether a shape marks a whole glomerulus, which can become an image to label."""
    return structure_of(labels) in GLOMERULI


def judged_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a shape that a person corrected or accepted: it is no proposal now."""
    return tuple(name for name in labels if name != PROPOSAL_LABEL)


def mended_region(region: Region) -> Region:
    """Return a region without crossings of its outline; errors as for `mended`."""
    outline, holes = mended(region.polygon, region.holes)
    return replace(region, polygon=outline, holes=holes)


def checked_shape(region: RegionInput, size: tuple[int, int]) -> tuple[RegionInput, bool]:
    """Return a shape that can be stored, and whether crossings of its outline were mended.

    Parameters
    ----------
    size : tuple of int
        Width and height of the slide, level-0 pixels.

    Raises
    ------
    RegionError
        If the outline bounds no area or several, or the shape lies outside the slide.
    """
    if region.outline is not None:
        outline, holes = mended(region.outline, region.holes)
        is_mended = (outline, holes) != (region.outline, region.holes)
        box = Region(region.region_id, outline).box()
        region = replace(region, outline=outline, holes=holes, box=box)
    else:
        is_mended = False
    check_on_slide(region.box, size)
    return region, is_mended


def check_on_slide(box: Box, size: tuple[int, int]) -> None:
    """Raise a `RegionError` if a box shares no pixel with a slide of this width and height."""
    width, height = size
    if box.x >= width or box.y >= height or box.x + box.width <= 0 or box.y + box.height <= 0:
        raise RegionError(
            f"the shape lies outside the slide ({width} x {height} pixels); draw it on this slide, "
            "or give --drawn-mpp if it was drawn on an image of another scale"
        )
