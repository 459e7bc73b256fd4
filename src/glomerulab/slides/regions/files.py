"""Region files: the annotated areas of a slide, in the formats of five programs.

The format is told by suffix and content; one module per format knows its details. Coordinates are
level-0 pixels everywhere except in QuPath's files, which count from the slide's bounds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.regions.asap import parse_asap, render_asap
from glomerulab.slides.regions.coco import parse_coco, render_coco
from glomerulab.slides.regions.csv import parse_csv, render_csv
from glomerulab.slides.regions.geojson import parse_geojson, render_geojson
from glomerulab.slides.regions.imagescope import parse_imagescope, render_imagescope
from glomerulab.slides.regions.parsing import BrokenRegion, load_json, load_xml

__all__ = ["REGION_SUFFIXES", "BrokenRegion", "RegionFormat", "read_regions", "write_regions"]

RegionFormat = Literal["geojson", "imagescope", "asap", "coco", "csv"]

REGION_SUFFIXES = (".geojson", ".json", ".xml", ".csv")
"""Suffixes of files that `read_regions` takes."""

DEFAULT_FORMATS: dict[str, RegionFormat] = {
    ".geojson": "geojson",
    ".json": "geojson",
    ".xml": "asap",
    ".csv": "csv",
}
NO_OFFSET: Point = (0.0, 0.0)


def read_regions(
    path: Path, *, bounds_offset: Point = NO_OFFSET, broken: list[BrokenRegion] | None = None
) -> list[Region]:
    """Read a region file.

    Parameters
    ----------
    path : Path
        QuPath GeoJSON, Aperio ImageScope XML, ASAP XML, COCO JSON or CSV.
    bounds_offset : tuple of float, default (0.0, 0.0)
        `Slide.bounds_offset` of the slide; added to QuPath's coordinates only.
    broken : list of BrokenRegion, optional
        Gets the regions that bound no area (a coordinate that is not finite, fewer than three
        points); without it one such region is an error.

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
    Points and lines have no area: they are left out with a warning in the log. Of an area with
    holes the outline is kept; an area of several parts becomes one region per part.
    """
    suffix = path.suffix.lower()
    if suffix not in REGION_SUFFIXES:
        known = ", ".join(REGION_SUFFIXES)
        raise RegionError(f"not a region file: its name must end in {known}", where=str(path))
    found = _parse(path, suffix, bounds_offset)
    regions = [one for one in found if isinstance(one, Region)]
    spoiled = [one for one in found if isinstance(one, BrokenRegion)]
    if spoiled and broken is None:
        raise RegionError(spoiled[0].reason, where=str(path))
    if broken is not None:
        broken += spoiled
    _refuse_duplicates(regions, path)
    return regions


def write_regions(
    regions: Sequence[Region],
    path: Path,
    *,
    file_format: RegionFormat | None = None,
    bounds_offset: Point = NO_OFFSET,
) -> None:
    """Write a region file that `read_regions` reads back equal.

    Parameters
    ----------
    regions : sequence of Region
    path : Path
        Replaced if it exists.
    file_format : str, optional
        ``geojson``, ``imagescope``, ``asap``, ``coco`` or ``csv``; by default told by the suffix
        (``.xml`` is ASAP's, ``.json`` is GeoJSON).
    bounds_offset : tuple of float, default (0.0, 0.0)
        `Slide.bounds_offset` of the slide; taken off for QuPath only.

    Raises
    ------
    RegionError
        If two regions of a slide share an id, the suffix names no format, or the format cannot
        keep a label as it is.

    Notes
    -----
    Only COCO and CSV say which slide a region lies on.
    """
    file_format = file_format or DEFAULT_FORMATS.get(path.suffix.lower())
    if file_format is None:
        known = ", ".join(DEFAULT_FORMATS)
        raise RegionError(f"no format is known by this suffix; give {known}", where=str(path))
    _refuse_duplicates(regions, path)
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


def _parse(path: Path, suffix: str, bounds_offset: Point) -> list[Region | BrokenRegion]:
    if suffix == ".csv":
        return parse_csv(path)
    if suffix == ".xml":
        root = load_xml(path)
        if root.tag == "ASAP_Annotations":
            return parse_asap(root, path)
        if root.tag == "Annotations":
            return parse_imagescope(root, path)
        raise RegionError(
            f"<{root.tag}> is neither ImageScope's <Annotations> nor ASAP's <ASAP_Annotations>",
            where=str(path),
        )
    content = load_json(path)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return parse_coco(content, path)
    return parse_geojson(content, path, bounds_offset=bounds_offset)


def _refuse_duplicates(regions: Sequence[Region], path: Path) -> None:
    seen: set[tuple[str | None, str]] = set()
    for region in regions:
        key = (region.slide_id, region.region_id)
        if key in seen:
            raise RegionError(f"region id {region.region_id!r} is given twice", where=str(path))
        seen.add(key)
