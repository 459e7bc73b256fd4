"""Drawn regions from and to region files, such as QuPath's GeoJSON."""

from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from glomerulab.apps.annotation.records import DrawnRegion
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import RegionToSave, list_regions, save_regions
from glomerulab.geometry import Region
from glomerulab.slides.regions.files import read_regions, write_regions
from glomerulab.slides.slide import open_slide

__all__ = ["export_regions", "import_regions", "name_on_slide"]


def import_regions(store: Store, path: Path, slide: Path, *, login: str) -> tuple[int, int]:
    """Take the regions of a file over as drawn by an annotator, all or none.

    Parameters
    ----------
    store : Store
    path : Path
        Any region file that `read_regions` takes.
    slide : Path
        The slide they lie on; its bounds are what QuPath's coordinates start from.
    login : str
        Who drew them.

    Returns
    -------
    n_new, n_there : int
        A region that was imported before, on this slide and in this shape, is there already.
    """
    with open_slide(slide) as opened:
        slide_id, offset = opened.slide_id, opened.bounds_offset
    mine = [
        region
        for region in read_regions(path, bounds_offset=offset)
        if region.slide_id in {None, slide_id}
    ]
    saved = save_regions(store, [_to_save(region, slide_id) for region in mine], login=login)
    n_there = sum(one.was_there for one in saved)
    return len(saved) - n_there, n_there


def export_regions(store: Store, path: Path, slide: Path, *, login: str) -> int:
    """Write the regions of a slide as a region file.

    Parameters
    ----------
    store : Store
    path : Path
        Its suffix says which format; ``.geojson`` is QuPath's.
    slide : Path
    login : str
        Sees what `list_regions` shows them.

    Returns
    -------
    int
        How many there were.
    """
    with open_slide(slide) as opened:
        slide_id, offset = opened.slide_id, opened.bounds_offset
    regions = [
        Region(name_on_slide(one), one.outline, one.labels, one.slide_id)
        for one in list_regions(store, login=login, slide_id=slide_id)
    ]
    write_regions(regions, path, bounds_offset=offset)
    return len(regions)


def name_on_slide(region: DrawnRegion) -> str:
    """Return what the region is called within its slide."""
    return region.region_id.removeprefix(f"{region.slide_id}:")


def _to_save(region: Region, slide_id: str) -> RegionToSave:
    # Files number the regions of each slide from 1; in the study the slide tells them apart. The
    # same region has the same id and key each time its file is read.
    own = region.region_id
    region_id = own if _is_uuid(own) else f"{slide_id}:{own.replace('/', '_')}"
    box = region.box()
    shape = f"glomerulab:{region_id}/{region.polygon}/{region.labels}"
    return RegionToSave(
        region_id=region_id,
        slide_id=slide_id,
        box=box,
        expected_version=0,
        save_key=str(uuid5(NAMESPACE_URL, shape)),
        labels=region.labels,
        outline=None if region.polygon == box.corners() else region.polygon,
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
