"""Cut drawn glomeruli out of their slides, so that they become images of the study.

Cutting is resumable: crops are written atomically, and existing ones are not cut again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glomerulab.apps.annotation.records import DrawnRegion, ImageReadings, NewImage
from glomerulab.apps.annotation.shapes import is_glomerulus
from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import list_regions
from glomerulab.apps.annotation.store.study import add_images, read_study
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import SlideError
from glomerulab.geometry import Region
from glomerulab.pipeline.crop_plan import COARSER, crop_image_id
from glomerulab.slides.cutting import CropTask, close_current_slide, current_slide, cut_crop
from glomerulab.slides.regions.overlaps import count_once, find_repeats
from glomerulab.slides.scale import ScaleWarning, region_size_warning
from glomerulab.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class CropSummary:
    """The result of cutting the regions of a study."""

    n_added: int
    """Images that are new in the study."""
    n_existing: int
    """Regions that were images already."""
    changed: tuple[str, ...]
    """Regions that were moved or deleted while they were cut; their images stay as they were."""
    failures: Mapping[str, str]
    """Why a region could not be cut, by region id."""
    repeated: Mapping[str, str] = field(default_factory=dict)
    """Regions that share most of their area with another, by region id, and the one that is cut."""
    scale_warnings: tuple[ScaleWarning, ...] = ()
    """Of slides that regions were cut from."""


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
    """Cut every drawn glomerulus that is not an image yet, and add it to the study.

    Shapes around other structures, such as tubules, stay where they are. The next `distribute`
    assigns readers to the images.

    Parameters
    ----------
    slides : sequence of SlideEntry
        The slides of the regions and their patients.
    out : Path
        Folder for the crops; created if needed.
    by : str
        Login of an owner.
    mpp : float, default 0.5
        Micrometres per pixel of the crops.
    margin : float, default 0.1
        Added on every side, as a share of the region's longer side.
    slide_id : str, optional
        Cut the regions of this slide alone.
    """
    drawn = list_regions(store, login=by, slide_id=slide_id)
    regions = [one for one in drawn if is_glomerulus(one.labels)]
    cut = {
        one.image.region_id: one
        for one in list_image_readings(store, by=by)
        if one.image.region_id is not None and slide_id in {None, one.image.slide_id}
    }
    present = {region.region_id: region for region in drawn}
    changed = [name for name, one in cut.items() if _was_changed(one, present.get(name), margin)]
    repeated, refused = _drawn_twice(regions, cut)
    gone = cut.keys() | repeated.keys() | refused.keys()
    new = [one for one in regions if one.region_id not in gone]
    images, failures, doubts = _cut_all(new, slides, out=out.absolute(), mpp=mpp, margin=margin)
    failures = {**refused, **failures}
    root = read_study(store).image_root
    images = [replace(one, image_path=_relative(one.image_path, root)) for one in images]
    n_added = add_images(store, images, by=by) if images else 0
    return CropSummary(n_added, len(cut), tuple(changed), failures, repeated, tuple(doubts))


def _drawn_twice(
    regions: Sequence[DrawnRegion], cut: Collection[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the regions whose glomerulus is cut as another region, often of another reader.

    And those around several others, which are cut, with the reason.
    """
    found: dict[str, str] = {}
    refused: dict[str, str] = {}
    for slide_id in dict.fromkeys(one.slide_id for one in regions):
        drawn = [one.region() for one in regions if one.slide_id == slide_id]
        is_cut = [one for one in drawn if one.region_id in cut]
        new = [one for one in drawn if one.region_id not in cut]
        repeats = list(find_repeats(new, is_cut))
        gone = {one.region_id for one, _ in repeats}
        single = count_once(
            [one for one in new if one.region_id not in gone],
            labels_matter=False,
            way_out="let its reader delete it",
        )
        refused |= {one.region_id: reason for one, reason in single.refused}
        pairs = (*repeats, *single.repeats)
        found |= {one.region_id: counted.region_id for one, counted in pairs}
    return found, refused


def scale_doubts(slide: Slide, slide_id: str, regions: Sequence[Region]) -> list[ScaleWarning]:
    """Return the contradictions about the scale of a slide, with the sizes of its regions."""
    sizes = region_size_warning(slide_id, regions, slide.mpp_xy)
    return [*slide.scale_warnings, *([] if sizes is None else [sizes])]


def _relative(path: str, root: Path) -> str:
    """Return a path relative to the root if it is inside, so that both can be moved together."""
    inside = Path(path)
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else path


def _was_changed(one: ImageReadings, region: DrawnRegion | None, margin: float) -> bool:
    return region is None or region.box.grown(margin) != one.image.box


def _cut_all(
    regions: Sequence[DrawnRegion],
    slides: Sequence[SlideEntry],
    *,
    out: Path,
    mpp: float,
    margin: float,
) -> tuple[list[NewImage], dict[str, str], list[ScaleWarning]]:
    """Cut regions slide by slide; a region or slide that fails does not stop the others."""
    images: list[NewImage] = []
    failures: dict[str, str] = {}
    doubts: list[ScaleWarning] = []
    entries = {entry.slide_id: entry for entry in slides}
    for slide_id in dict.fromkeys(region.slide_id for region in regions):
        on_slide = [region for region in regions if region.slide_id == slide_id]
        entry = entries.get(slide_id)
        if entry is None:
            reason = f"its slide {slide_id!r} is not among the slides given"
            failures |= {region.region_id: reason for region in on_slide}
            continue
        try:
            slide = current_slide(entry.path, mpp_override=entry.mpp)
            shapes = [one.region() for one in on_slide]
            doubts += scale_doubts(slide, slide_id, shapes)
            if slide.mpp > mpp * COARSER:
                doubts.append(
                    ScaleWarning(
                        "Slide {slide} is coarser than the crops' {mpp} µm per pixel: they are "
                        "enlarged and hold no finer detail.",
                        {"slide": slide_id, "mpp": f"{mpp:g}"},
                    )
                )
        except SlideError as error:
            failures |= {region.region_id: error.message for region in on_slide}
            continue
        for region in on_slide:
            try:
                images.append(_cut(region, entry, out=out, mpp=mpp, margin=margin))
            except SlideError as error:
                failures[region.region_id] = error.message
    close_current_slide()
    return images, failures, doubts


def _cut(
    region: DrawnRegion, entry: SlideEntry, *, out: Path, mpp: float, margin: float
) -> NewImage:
    """Cut one region of its slide, which stays open for the next."""
    slide = current_slide(entry.path, mpp_override=entry.mpp)
    if slide.padded_share(region.box) == 1.0:
        raise SlideError("the region lies outside its slide")
    stain = entry.stain or slide.stain
    box = region.box.grown(margin)
    image_id = crop_image_id(region.slide_id, region.name_on_slide)
    # With the version: the crop of a cut that failed must not be used after the region was moved.
    path = out / f"{image_id}-v{region.version}.png"
    cut_crop(CropTask(entry.path, entry.mpp, box, mpp, path))
    return NewImage(
        image_id=image_id,
        image_path=str(path),
        patient_id=entry.patient_id,
        slide_id=region.slide_id,
        stain=stain,
        mpp=mpp,
        box=box,
        region_id=region.region_id,
    )
