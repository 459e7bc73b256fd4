"""The regions that lie on a slide: which file holds them, and which of its regions are meant."""

from pathlib import Path

from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.files import REGION_SUFFIXES, BrokenRegion, read_regions

__all__ = ["region_file_of", "regions_on"]


def region_file_of(entry: SlideEntry, folder: Path) -> Path:
    """Return the region file of a slide.

    Parameters
    ----------
    entry : SlideEntry
    folder : Path
        Holds one called after each slide.

    Returns
    -------
    Path

    Raises
    ------
    RegionError
        If there is none, or more than one.
    """
    names = dict.fromkeys((entry.slide_id, entry.path.stem, entry.path.name))
    candidates = [folder / f"{name}{suffix}" for name in names for suffix in REGION_SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise RegionError(
            f"no region file for slide {entry.slide_id!r}; it must be called "
            f"{entry.slide_id}.geojson, .json, .xml or .csv",
            where=str(folder),
        )
    if len(found) > 1:
        several = " and ".join(path.name for path in found)
        raise RegionError(f"{several} are both for slide {entry.slide_id!r}", where=str(folder))
    return found[0]


def regions_on(
    entry: SlideEntry,
    regions_path: Path,
    *,
    bounds_offset: Point,
    broken: list[BrokenRegion] | None = None,
) -> list[Region]:
    """Return the regions that lie on a slide.

    Parameters
    ----------
    entry : SlideEntry
    regions_path : Path
        One region file, or a folder with one called after each slide.
    bounds_offset : tuple of float
        Of the slide; added to QuPath's coordinates.
    broken : list of BrokenRegion, optional
        See `read_regions`.

    Returns
    -------
    list of Region
        May be empty.
    """
    path = region_file_of(entry, regions_path) if regions_path.is_dir() else regions_path
    found = read_regions(path, bounds_offset=bounds_offset, broken=broken)
    return [region for region in found if region.slide_id in {None, entry.slide_id}]
