"""Read and write region files: the annotated areas of a slide, in five formats.

The format is chosen by suffix and content; one module per format knows its details. Coordinates are
level-0 pixels in all formats except QuPath's, which count from the corner of the slide's bounds.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.files import StrPath, atomic_write
from glomerulab.slides.regions.asap import parse_asap, render_asap
from glomerulab.slides.regions.coco import parse_coco, render_coco
from glomerulab.slides.regions.csv import parse_csv, render_csv
from glomerulab.slides.regions.geojson import parse_geojson, render_geojson
from glomerulab.slides.regions.imagescope import parse_imagescope, render_imagescope
from glomerulab.slides.regions.parsing import (
    InvalidRegion,
    Parsed,
    Skipped,
    load_json,
    load_text,
    load_xml,
)

__all__ = ["REGION_SUFFIXES", "InvalidRegion", "RegionFormat", "read_regions", "write_regions"]

RegionFormat = Literal["geojson", "imagescope", "asap", "coco", "csv"]

DEFAULT_FORMATS: dict[str, RegionFormat] = {
    ".geojson": "geojson",
    ".json": "geojson",
    ".xml": "asap",
    ".csv": "csv",
}
REGION_SUFFIXES = tuple(DEFAULT_FORMATS)
NO_OFFSET: Point = (0.0, 0.0)

logger = logging.getLogger(__name__)


def read_regions(
    path: StrPath, *, bounds_offset: Point = NO_OFFSET, invalid: list[InvalidRegion] | None = None
) -> list[Region]:
    """Read a region file.

    Parameters
    ----------
    path : Path
        QuPath GeoJSON, Aperio ImageScope XML, ASAP XML, COCO JSON or CSV.
    bounds_offset : tuple of float, default (0.0, 0.0)
        `Slide.bounds_offset` of the slide; added to QuPath's coordinates only.
    invalid : list of InvalidRegion, optional
        Receives the regions that bound no area (a coordinate that is not finite, fewer than three
        points). Without it, one such region is an error.

    Returns
    -------
    list of Region
        In the order of the file; level-0 pixels; ids unique within a slide.

    Raises
    ------
    RegionError
        If the file is missing, malformed, or in no known format; the message names the feature.

    Notes
    -----
    Points and lines have no area: they are skipped with a warning in the log. Of an area with holes
    the outer ring is kept; an area of several parts becomes one region per part.
    """
    path = Path(path)
    try:
        parsed = list(_parse(path, bounds_offset))
    except RegionError as error:  # the parsers know the feature, not the file
        raise RegionError(error.message, where=str(path)) from error
    for one in parsed:
        if isinstance(one, Skipped):
            logger.warning("%s: %s; skipped", path, one.reason)
    found = [one for one in parsed if isinstance(one, InvalidRegion)]
    if invalid is not None:
        invalid += found
    elif found:
        raise RegionError(found[0].reason, where=str(path))
    regions = [one for one in parsed if isinstance(one, Region)]
    _check_unique(regions, path)
    return regions


def write_regions(
    regions: Sequence[Region],
    path: StrPath,
    *,
    file_format: RegionFormat | None = None,
    bounds_offset: Point = NO_OFFSET,
) -> None:
    """Write a region file that `read_regions` reads back equal.

    Parameters
    ----------
    path : Path
        Replaced if it exists.
    file_format : str, optional
        ``geojson``, ``imagescope``, ``asap``, ``coco`` or ``csv``; by default chosen by the suffix
        (``.xml`` is ASAP's, ``.json`` is GeoJSON).
    bounds_offset : tuple of float, default (0.0, 0.0)
        `Slide.bounds_offset` of the slide; subtracted for QuPath only.

    Raises
    ------
    RegionError
        If two regions of a slide share an id, the suffix names no format, or the format cannot
        keep a label as it is.

    Notes
    -----
    Only COCO and CSV keep `Region.slide_id`.
    """
    path = Path(path)
    file_format = file_format or DEFAULT_FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise _unknown_suffix(path)
    _check_unique(regions, path)
    renderers: dict[RegionFormat, Callable[[Sequence[Region]], str]] = {
        "geojson": lambda kept: render_geojson(kept, bounds_offset=bounds_offset),
        "imagescope": render_imagescope,
        "asap": render_asap,
        "coco": render_coco,
        "csv": render_csv,
    }
    text = renderers[file_format](regions)
    with atomic_write(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def _parse(path: Path, bounds_offset: Point) -> Iterable[Parsed]:
    suffix = path.suffix.lower()
    if suffix not in REGION_SUFFIXES:
        raise _unknown_suffix(path)
    if suffix == ".csv":
        return parse_csv(load_text(path, is_table=True))
    if suffix == ".xml":
        root = load_xml(path)
        if root.tag == "ASAP_Annotations":
            return parse_asap(root)
        if root.tag == "Annotations":
            return parse_imagescope(root)
        raise RegionError(
            f"the root <{root.tag}> is neither ImageScope's <Annotations> nor ASAP's "
            "<ASAP_Annotations>"
        )
    content = load_json(path)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return parse_coco(content)
    return parse_geojson(content, bounds_offset=bounds_offset)


def _unknown_suffix(path: Path) -> RegionError:
    known = ", ".join(REGION_SUFFIXES)
    return RegionError(f"the name of a region file must end in {known}", where=str(path))


def _check_unique(regions: Sequence[Region], path: Path) -> None:
    seen: set[tuple[str | None, str]] = set()
    for region in regions:
        key = (region.slide_id, region.region_id)
        if key in seen:
            raise RegionError(
                f"region id {region.region_id!r} is given twice; ids must be unique on a slide",
                where=str(path),
            )
        seen.add(key)
