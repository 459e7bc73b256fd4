"""Boxes drawn on slides become crops and queue items; region files become boxes.

A box that is in the queue is no longer changed: people have judged what it showed.
"""

import uuid
from pathlib import Path

from glomerulab.annotation.records import Account, DrawnRegion, SavedRegion
from glomerulab.annotation.store.assignments import distribute
from glomerulab.annotation.store.images import NewImage, add_images
from glomerulab.annotation.store.regions import (
    RegionToSave,
    list_regions,
    save_region,
    save_regions,
)
from glomerulab.annotation.web.shelf import slide_key
from glomerulab.annotation.web.site import Site
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import AnnotationError
from glomerulab.files import make_folder
from glomerulab.geometry import Box, Point, Region
from glomerulab.slides.cutting import CropTask, cut_crop
from glomerulab.slides.regions import read_regions, write_regions

__all__ = ["draw_box", "export_regions", "import_regions", "queue_boxes"]


def draw_box(site: Site, account: Account, entry: SlideEntry, region: RegionToSave) -> SavedRegion:
    """Save one box, unless it has become an image of the study.

    Parameters
    ----------
    site : Site
    account : Account
        Who draws.
    entry : SlideEntry
        The slide.
    region : RegionToSave

    Returns
    -------
    SavedRegion

    Raises
    ------
    AnnotationError
        If its crop has been handed out.
    """
    if region.expected_version and _crop_path(site, entry, region.region_id).exists():
        raise AnnotationError("this box has been cut and handed out; it can no longer be changed")
    return save_region(site.store, region, login=account.login)


def queue_boxes(site: Site, owner: Account, entry: SlideEntry) -> int:
    """Cut every box of a slide, and hand the crops out.

    Parameters
    ----------
    site : Site
    owner : Account
    entry : SlideEntry
        The slide.

    Returns
    -------
    int
        How many images are new.

    Raises
    ------
    SlideError
        If the slide cannot be read, or does not say its micrometres per pixel.
    """
    settings = site.settings
    images = []
    for region in list_regions(site.store, login=owner.login, slide_id=entry.slide_id):
        path = _crop_path(site, entry, region.region_id)
        box = region.box.grown(settings.crop_margin)
        make_folder(path.parent)
        cut_crop(CropTask(entry.path, entry.mpp, box, settings.crop_mpp, path))
        images.append(_new_image(site, entry, region, box, path))
    n_new = add_images(site.store, images, by=owner.login) if images else 0
    distribute(site.store, by=owner.login)
    return n_new


def import_regions(
    site: Site, account: Account, entry: SlideEntry, *, file: Path, bounds_offset: Point
) -> int:
    """Save the regions of a file as boxes of the account.

    Parameters
    ----------
    site : Site
    account : Account
    entry : SlideEntry
        The slide.
    file : Path
        QuPath GeoJSON.
    bounds_offset : tuple of float
        Of the slide.

    Returns
    -------
    int
        How many boxes there are in the file. The same file again changes nothing.

    Raises
    ------
    RegionError
        If the file is malformed; then no box is saved.
    """
    regions = [
        _imported(region, account, entry)
        for region in read_regions(file, bounds_offset=bounds_offset)
    ]
    # A box that was imported before and changed since stays as it is now.
    known = {one.region_id for one in list_regions(site.store, login=account.login)}
    fresh = [region for region in regions if region.region_id not in known]
    save_regions(site.store, fresh, login=account.login)
    return len(regions)


def export_regions(
    site: Site, account: Account, entry: SlideEntry, *, file: Path, bounds_offset: Point
) -> None:
    """Write the boxes that an account may see as QuPath GeoJSON.

    Parameters
    ----------
    site : Site
    account : Account
    entry : SlideEntry
        The slide.
    file : Path
        Ends in ``.geojson``.
    bounds_offset : tuple of float
        Of the slide.
    """
    drawn = list_regions(site.store, login=account.login, slide_id=entry.slide_id)
    regions = [Region(_qupath_id(one.region_id), one.outline, one.labels) for one in drawn]
    write_regions(regions, file, bounds_offset=bounds_offset)


def _imported(region: Region, account: Account, entry: SlideEntry) -> RegionToSave:
    # The same region of the same person has the same id, however often it is imported.
    name = f"{account.login}/{entry.slide_id}/{region.region_id}/{region.polygon}"
    return RegionToSave(
        region_id=uuid.uuid5(uuid.NAMESPACE_OID, name).hex,
        slide_id=entry.slide_id,
        box=region.box(),
        expected_version=0,
        save_key=str(uuid.uuid5(uuid.NAMESPACE_OID, f"import {name}")),
        labels=region.labels,
        outline=None if region.polygon == region.box().corners() else region.polygon,
    )


def _qupath_id(region_id: str) -> str:
    """Return a UUID as QuPath writes it, and any other id as it is."""
    try:
        return str(uuid.UUID(region_id))
    except ValueError:
        return region_id


def _new_image(
    site: Site, entry: SlideEntry, region: DrawnRegion, box: Box, path: Path
) -> NewImage:
    return NewImage(
        image_id=f"{entry.slide_id}-{slide_key(region.region_id)[:12]}",
        image_path=path.relative_to(site.crops_folder.parent).as_posix(),
        patient_id=entry.patient_id,
        slide_id=entry.slide_id,
        stain=entry.stain,
        mpp=site.settings.crop_mpp,
        box=box,
        region_id=region.region_id,
    )


def _crop_path(site: Site, entry: SlideEntry, region_id: str) -> Path:
    # Ids of regions drawn elsewhere may be anything: their digest is a file name on every system.
    return site.crops_folder / slide_key(entry.slide_id) / f"{slide_key(region_id)}.png"
