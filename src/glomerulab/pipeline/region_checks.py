"""Whether drawn regions are plausible: on tissue, and of similar size."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.slides.regions.features import RegionNote, RegionOptions
from glomerulab.slides.regions.polygons import contains
from glomerulab.slides.resampling import Colour
from glomerulab.slides.slide import Slide
from glomerulab.stain.optical_density import tissue_mask

__all__ = ["regions_on_glass", "size_notes"]

SIDE_PX = 48
"""Size at which a region is looked at."""
GLASS_LIGHTNESS = 0.96
"""Relative to the glass of the slide; pale tissue is darker."""
DARKEST_GLASS, MOST_COLOURED_GLASS = 190, 25
"""Least channel of glass, and greatest difference between its channels."""
LEAST_TISSUE = 0.02
"""A region with a smaller share of tissue lies on glass."""
FAR = 4.0
"""A region this many times wider or narrower than the median one is an outlier."""
FEWEST = 3
N_LISTED = 5


def regions_on_glass(
    slide: Slide, regions: Sequence[Region], options: RegionOptions
) -> list[Region]:
    """Return the regions under which there is no tissue.

    Parameters
    ----------
    regions : sequence of Region
        Those outside the slide are not judged.

    Raises
    ------
    RegionError
        If all of them lie on glass; a single one only if bounds or a drawn mpp moved it.
    SlideError
        If the pixels cannot be decoded.
    """
    inside = [one for one in regions if slide.padded_share(one.box()) < 1.0]
    if not inside or not _is_glass(slide.background):
        return []
    on_glass = [one for one in inside if _tissue_share(slide, one) < LEAST_TISSUE]
    # One region may be of very pale tissue; several, or one that was moved, are misplaced.
    is_moved = any(slide.bounds_offset) or options.drawn_mpp is not None
    if on_glass and len(on_glass) == len(inside) and (len(inside) > 1 or is_moved):
        raise RegionError(
            f"{'the region lies' if len(inside) == 1 else f'all {len(inside)} regions lie'} on "
            f"empty glass. {_way_out(slide, options)}"
        )
    return on_glass


def _way_out(slide: Slide, options: RegionOptions) -> str:
    ways = []
    if options.ignore_bounds:
        ways.append("leave out --ignore-bounds if QuPath drew them")
    elif any(slide.bounds_offset):
        ways.append("give --ignore-bounds if they do not count from the bounds of the slide")
    ways.append(
        "give --drawn-mpp if they were drawn on an image of another scale"
        if options.drawn_mpp is None
        else "correct --drawn-mpp"
    )
    return f"For regions of this slide, {', or '.join(ways)}."


def _is_glass(colour: Colour) -> bool:
    """Return whether a background is that of glass; an image of tissue alone has another."""
    return min(colour) >= DARKEST_GLASS and max(colour) - min(colour) <= MOST_COLOURED_GLASS


def _tissue_share(slide: Slide, region: Region) -> float:
    """Return the share of tissue inside an outline."""
    box = region.box()
    side = max(box.width, box.height)
    mpp = max(slide.mpp_xy) * max(1.0, side / SIDE_PX)
    image = slide.read_region(box, mpp=mpp)
    white = np.array(slide.background, dtype=np.float64)
    tissue = tissue_mask(image, white, glass_lightness=GLASS_LIGHTNESS)
    height, width = tissue.shape
    xs = box.x + (np.arange(width) + 0.5) * box.width / width
    ys = box.y + (np.arange(height) + 0.5) * box.height / height
    places = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    inside = contains(region.polygon, places).reshape(height, width)
    return float(tissue[inside].mean()) if inside.any() else 1.0


def size_notes(widths: Mapping[tuple[str, str], float]) -> dict[str, RegionNote]:
    """Return a note for each slide with regions far larger or smaller than the others.

    Parameters
    ----------
    widths : mapping of (slide id, region id) to float
        Of all regions of a cohort, in micrometres.
    """
    if len(widths) < FEWEST:
        return {}
    usual = median(widths.values())
    outliers: dict[str, list[str]] = {}
    for (slide_id, region_id), width in widths.items():
        if abs(math.log(width / usual)) > math.log(FAR):
            outliers.setdefault(slide_id, []).append(f"{region_id} ({width:.0f} µm)")
    return {
        slide_id: RegionNote.of(
            "Regions far larger or smaller than the others, of about {usual} µm, on slide {slide}: "
            "{regions}. Leave them out with --skip-class if they are no glomeruli.",
            usual=f"{usual:.0f}",
            slide=slide_id,
            regions=listed(found),
        )
        for slide_id, found in outliers.items()
    }


def glass_note(slide_id: str, on_glass: Sequence[Region]) -> RegionNote:
    """Return the note on single regions without tissue."""
    return RegionNote.of(
        "Regions on empty glass of slide {slide}: {regions}.",
        slide=slide_id,
        regions=listed([one.region_id for one in on_glass]),
    )


def region_width(box: Box, mpp_xy: tuple[float, float]) -> float:
    """Return the side of the square of a box's area, in micrometres."""
    return math.sqrt(box.width * mpp_xy[0] * box.height * mpp_xy[1])


def listed(names: Sequence[str]) -> str:
    """Join the first names and count the rest."""
    more = len(names) - N_LISTED
    return ", ".join(names[:N_LISTED]) + (f", … (+{more})" if more > 0 else "")
