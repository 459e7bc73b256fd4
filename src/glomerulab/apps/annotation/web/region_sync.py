"""Boxes drawn on slides become crops and queue items; region files become boxes.

A box that is in the queue is no longer changed: people have judged what it showed.
"""

import uuid
from pathlib import Path

from glomerulab.apps.annotation.crops import crop_regions
from glomerulab.apps.annotation.records import Account
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.regions import (
    RegionToSave,
    list_regions,
    save_regions,
)
from glomerulab.apps.annotation.web.site import Site
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import SlideError
from glomerulab.geometry import Point, Region
from glomerulab.slides.regions.files import read_regions, write_regions

__all__ = ["export_regions", "import_regions", "queue_boxes"]


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
        If the slide cannot be read or does not say its micrometres per pixel, or a box lies
        outside it; the other boxes are handed out.
    """
    settings = site.settings
    done = crop_regions(
        site.store,
        [entry],
        out=site.crops_folder,
        by=owner.login,
        mpp=settings.crop_mpp,
        margin=settings.crop_margin,
        slide_id=entry.slide_id,
    )
    distribute(site.store, by=owner.login)
    if done.failures:
        reason = next(iter(done.failures.values()))
        raise SlideError(
            f"{len(done.failures)} box(es) could not be cut, the first because: {reason}; "
            f"{done.n_added} other(s) were handed out"
        )
    return done.n_added


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
