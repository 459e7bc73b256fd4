"""Read and write region files: the annotated areas of a slide, in five formats.

The format is chosen by suffix and content; one module per format knows its details. Coordinates are
level-0 pixels in all formats except QuPath's, which count from the corner of the slide's bounds,
and COCO's where it states an image of another size.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.files import StrPath, atomic_write, existing_path
from glomerulab.slides.regions.asap import parse_asap, render_asap
from glomerulab.slides.regions.coco import parse_coco, render_coco
from glomerulab.slides.regions.csv import parse_csv, render_csv
from glomerulab.slides.regions.features import RegionFile, RegionOptions, SlideFrame
from glomerulab.slides.regions.geojson import parse_geojson, render_geojson
from glomerulab.slides.regions.imagescope import parse_imagescope, render_imagescope
from glomerulab.slides.regions.parsing import InvalidRegion, load_json, load_text, load_xml
from glomerulab.slides.regions.selection import left_out_notes, select_regions

__all__ = [
    "REGION_SUFFIXES",
    "InvalidRegion",
    "RegionFormat",
    "read_region_file",
    "read_regions",
    "write_regions",
]

RegionFormat = Literal["geojson", "imagescope", "asap", "coco", "csv"]

DEFAULT_FORMATS: dict[str, RegionFormat] = {
    ".geojson": "geojson",
    ".json": "geojson",
    ".xml": "asap",
    ".csv": "csv",
}
COMPRESSED = ".gz"
REGION_SUFFIXES = (*DEFAULT_FORMATS, *(suffix + COMPRESSED for suffix in DEFAULT_FORMATS))
NO_OFFSET: Point = (0.0, 0.0)

logger = logging.getLogger(__name__)


def read_regions(
    path: StrPath,
    *,
    bounds_offset: Point = NO_OFFSET,
    options: RegionOptions | None = None,
    frame: SlideFrame | None = None,
    slide_id: str | None = None,
    invalid: list[InvalidRegion] | None = None,
) -> list[Region]:
    """Read a region file.

    Parameters
    ----------
    path : Path
        QuPath GeoJSON, Aperio ImageScope XML, ASAP XML, COCO JSON or CSV, also with ``.gz``.
    bounds_offset : tuple of float, default (0.0, 0.0)
        `Slide.bounds_offset` of the slide; added to QuPath's coordinates only.
    options : RegionOptions, optional
        Which classes are taken, and where the coordinates begin.
    frame : SlideFrame, optional
        The slide, in place of `bounds_offset`; the image sizes that COCO states are compared with
        it.
    slide_id : str, optional
        Leave out regions that name another slide.
    invalid : list of InvalidRegion, optional
        Receives the objects that are damaged or bound no area. Without it, one such object is an
        error.

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
    Points, lines, cells, tiles, detections, tissue outlines and classes that end in ``*`` are left
    out with a warning in the log.
    """
    file = read_region_file(path)
    options = options or RegionOptions()
    frame = frame or SlideFrame(None, bounds_offset)
    found = select_regions(file.features, frame, options, slide_id=slide_id)
    for note in (*file.notes, *left_out_notes(found.left_out), *found.notes):
        logger.warning("%s: %s", file.path, note.en)
    if invalid is not None:
        invalid += found.invalid
    elif found.invalid:
        raise RegionError(found.invalid[0].reason, where=str(file.path))
    return found.regions


def read_region_file(path: StrPath) -> RegionFile:
    """Read what a region file says, without deciding what becomes of it.

    Raises
    ------
    RegionError
        If the file is missing, malformed as a whole, or in no known format.
    """
    path = existing_path(Path(path))
    try:
        return _parse(path)
    except RegionError as error:  # the parsers know the feature, not the file
        raise RegionError(error.message, where=str(path)) from error


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


def _parse(path: Path) -> RegionFile:
    suffix = _suffix(path)
    if suffix not in DEFAULT_FORMATS:
        if not path.exists():
            raise RegionError(
                "there is no such region file or folder; check its path", where=str(path)
            )
        raise _unknown_suffix(path)
    if suffix == ".csv":
        return RegionFile(path, tuple(parse_csv(load_text(path, is_table=True), where=str(path))))
    if suffix == ".xml":
        root = load_xml(path)
        if root.tag == "ASAP_Annotations":
            return RegionFile(path, tuple(parse_asap(root)))
        if root.tag == "Annotations":
            return RegionFile(path, tuple(parse_imagescope(root)))
        raise RegionError(
            f"the root <{root.tag}> is neither ImageScope's <Annotations> nor ASAP's "
            "<ASAP_Annotations>"
        )
    content = load_json(path)
    if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        return RegionFile(path, tuple(parse_coco(content)))
    return RegionFile(path, tuple(parse_geojson(content)))


def _suffix(path: Path) -> str:
    """Return the suffix without that of a compressed file."""
    name = path.with_suffix("") if path.suffix.lower() == COMPRESSED else path
    return name.suffix.lower()


def _unknown_suffix(path: Path) -> RegionError:
    known = ", ".join(DEFAULT_FORMATS)
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
