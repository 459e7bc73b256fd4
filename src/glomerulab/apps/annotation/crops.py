"""From drawn regions to queue items: each is cut out of its slide and becomes an image.

Resumable: crops appear whole, those that are there are not cut again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glomerulab.apps.annotation.records import DrawnRegion, Outcome
from glomerulab.apps.annotation.region_files import name_on_slide
from glomerulab.apps.annotation.store.adjudications import list_outcomes
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.images import NewImage, add_images
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.apps.annotation.store.study import read_study
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import SlideError
from glomerulab.pipeline.extract import crop_image_id
from glomerulab.slides.cutting import CropTask, cut_crop
from glomerulab.slides.slide import Slide, open_slide

__all__ = ["CropSummary", "crop_regions"]


@dataclass(frozen=True, slots=True)
class CropSummary:
    """What cutting the regions of a study did."""

    n_added: int
    """Images that are new in the study."""
    n_there: int
    """Regions that were images already."""
    changed: tuple[str, ...]
    """Regions that were moved or deleted while they were cut: their images stay as they were."""
    failures: Mapping[str, str]
    """Why a region could not be cut, by region id."""


def crop_regions(
    store: Store,
    slides: Sequence[SlideEntry],
    *,
    out: Path,
    by: str,
    mpp: float = 0.5,
    margin: float = 0.1,
    slide_id: str | None = None,
) -> CropSummary:
    """Cut every drawn region that is no image yet, and add it to the study.

    Readers get the images with the next `distribute`.

    Parameters
    ----------
    store : Store
    slides : sequence of SlideEntry
        Where the slides of the regions are, and whose.
    out : Path
        Folder for the crops; made if need be.
    by : str
        Login of an owner.
    mpp : float, default 0.5
        Micrometres per pixel of the crops.
    margin : float, default 0.1
        Added on every side, as a share of the region's longer side.
    slide_id : str, optional
        Cut the regions of this slide alone.

    Returns
    -------
    CropSummary

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    regions = list_regions(store, login=by, slide_id=slide_id)
    cut = {
        one.image.region_id: one
        for one in list_outcomes(store, by=by)
        if one.image.region_id is not None and slide_id in {None, one.image.slide_id}
    }
    standing = {region.region_id: region for region in regions}
    changed = [name for name, one in cut.items() if _was_changed(one, standing.get(name), margin)]
    fresh = [region for region in regions if region.region_id not in cut]
    images, failures = _cut_all(fresh, slides, out=out.absolute(), mpp=mpp, margin=margin)
    root = read_study(store).image_root
    images = [replace(one, image_path=_relative(one.image_path, root)) for one in images]
    n_added = add_images(store, images, by=by) if images else 0
    return CropSummary(n_added, len(cut), tuple(changed), failures)


def _relative(path: str, root: Path) -> str:
    """Return a path as the study keeps it: it moves with its images where it lies among them."""
    inside = Path(path)
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else path


def _was_changed(one: Outcome, region: DrawnRegion | None, margin: float) -> bool:
    return region is None or region.box.grown(margin) != one.image.box


def _cut_all(
    regions: Sequence[DrawnRegion],
    slides: Sequence[SlideEntry],
    *,
    out: Path,
    mpp: float,
    margin: float,
) -> tuple[list[NewImage], dict[str, str]]:
    """Cut regions slide by slide; a region or slide that fails does not stop the others."""
    images: list[NewImage] = []
    failures: dict[str, str] = {}
    entries = {entry.slide_id: entry for entry in slides}
    for slide_id in dict.fromkeys(region.slide_id for region in regions):
        mine = [region for region in regions if region.slide_id == slide_id]
        entry = entries.get(slide_id)
        if entry is None:
            reason = f"its slide {slide_id!r} is not among the slides given"
            failures |= {region.region_id: reason for region in mine}
            continue
        try:
            with open_slide(entry.path, mpp_override=entry.mpp) as slide:
                for region in mine:
                    image = _cut(region, entry, slide, out=out, mpp=mpp, margin=margin)
                    if isinstance(image, str):
                        failures[region.region_id] = image
                    else:
                        images.append(image)
        except SlideError as error:
            failures |= {region.region_id: error.message for region in mine}
    return images, failures


def _cut(
    region: DrawnRegion, entry: SlideEntry, slide: Slide, *, out: Path, mpp: float, margin: float
) -> NewImage | str:
    """Cut one region of its open slide, or say why it cannot be."""
    if slide.padded_share(region.box) == 1.0:
        return "lies wholly outside its slide"
    box = region.box.grown(margin)
    image_id = crop_image_id(region.slide_id, name_on_slide(region))
    # With the version: a crop that is left from a cut that failed is not taken for a moved region.
    path = out / f"{image_id}-v{region.version}.png"
    try:
        cut_crop(CropTask(entry.path, entry.mpp, box, mpp, path))
    except SlideError as error:
        return error.message
    return NewImage(
        image_id=image_id,
        image_path=str(path),
        patient_id=entry.patient_id,
        slide_id=region.slide_id,
        stain=entry.stain or slide.stain,
        mpp=mpp,
        box=box,
        region_id=region.region_id,
    )
