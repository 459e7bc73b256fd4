"""Read regions from the parsed content of a region file."""

from collections.abc import Iterable

from glomerulab.geometry import Region
from glomerulab.slides.regions.features import Feature, RegionOptions, SlideFrame
from glomerulab.slides.regions.parsing import InvalidRegion
from glomerulab.slides.regions.selection import Selection, select_regions


def select(
    features: Iterable[Feature],
    *,
    size: tuple[int, int] | None = None,
    offset: tuple[float, float] = (0.0, 0.0),
    mpp: tuple[float, float] | None = None,
    **options: object,
) -> Selection:
    """Select the regions of a slide."""
    return select_regions(tuple(features), SlideFrame(size, offset, mpp), RegionOptions(**options))


def regions_of(features: Iterable[Feature], **settings: object) -> list[Region | InvalidRegion]:
    """Return the regions, then those that are invalid."""
    found = select(features, **settings)
    return [*found.regions, *found.invalid]
