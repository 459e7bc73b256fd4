"""Exchange drawn regions with slides and region files.

Regions are cut out of their slide and become images of the study, and they are imported from and
exported to region files such as QuPath's GeoJSON. Cutting is resumable: crops are written
atomically, and existing ones are not cut again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import NAMESPACE_OID, NAMESPACE_URL, UUID, uuid5

from glomerulab.apps.annotation.records import DrawnRegion, ImageReadings, NewImage
from glomerulab.apps.annotation.store.accounts import login_key
from glomerulab.apps.annotation.store.adjudications import list_image_readings
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import (
    RegionInput,
    known_regions,
    list_regions,
    save_regions,
)
from glomerulab.apps.annotation.store.study import add_images, read_study
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import MissingMppError, RegionError, SlideError
from glomerulab.geometry import Point, Region
from glomerulab.pipeline.crop_plan import COARSER, crop_image_id
from glomerulab.pipeline.region_checks import glass_note, regions_on_glass
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.cutting import CropTask, close_current_slide, current_slide, cut_crop
from glomerulab.slides.regions.features import RegionNote, RegionOptions, SlideFrame
from glomerulab.slides.regions.files import (
    InvalidRegion,
    read_region_file,
    read_regions,
    write_regions,
)
from glomerulab.slides.regions.overlaps import count_once, find_repeats, repeats_note
from glomerulab.slides.regions.selection import (
    Selection,
    drop_repeats,
    left_out_notes,
    select_regions,
    unmatched_notes,
)
from glomerulab.slides.scale import ScaleWarning, region_size_warning
from glomerulab.slides.slide import Slide, open_slide

MAX_REGIONS = 50_000
"""Objects of a region file that is imported; a biopsy has tens to hundreds of glomeruli."""


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
    """Cut every drawn region that is not an image yet, and add it to the study.

    The next `distribute` assigns readers to the images.

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
    regions = list_regions(store, login=by, slide_id=slide_id)
    cut = {
        one.image.region_id: one
        for one in list_image_readings(store, by=by)
        if one.image.region_id is not None and slide_id in {None, one.image.slide_id}
    }
    present = {region.region_id: region for region in regions}
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
        drawn = [
            Region(one.region_id, one.outline, one.labels)
            for one in regions
            if one.slide_id == slide_id
        ]
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


def import_region_file(
    store: Store,
    path: Path,
    slide: Path,
    *,
    login: str,
    options: RegionOptions | None = None,
    invalid: list[InvalidRegion] | None = None,
    notes: list[RegionNote] | None = None,
    track: Track = silent,
) -> tuple[int, int]:
    """Import the regions of a file as drawn by an annotator.

    Parameters
    ----------
    path : Path
        Any region file that `read_regions` reads.
    slide : Path
        The slide of the regions; its bounds are the origin of QuPath's coordinates.
    options : RegionOptions, optional
        Which objects of the file are regions.
    invalid : list of InvalidRegion, optional
        Receives the objects that are damaged or bound no area. Without it, one of them is an error,
        and nothing is imported.
    notes : list of RegionNote, optional
        Receives what was left out or changed.

    Returns
    -------
    n_new, n_existing : int
        A region that was imported before, on this slide and in this shape, exists already. So a
        killed import is completed by the same call.

    Raises
    ------
    RegionError
        If the file is malformed as a whole or too large, it has no region of the slide, or all of
        them lie on empty glass.
    MissingMppError
        If a drawn mpp is given and the slide states no micrometres per pixel.
    """
    options = options or RegionOptions()
    file = read_region_file(path)
    _check_number(len(file.features), where=str(path))
    with _open_without_scale(slide, options) as opened:
        slide_id, frame = opened.slide_id, SlideFrame.of(opened, options)
        found = select_regions(
            file.features,
            frame,
            options,
            slide_id=slide_id,
            slide_names=(opened.path.name,),
        )
        _leave_out_outside(found, opened)
        drop_repeats(found, frame)
        checks = _slide_notes(opened, found.regions, options, where=str(path))
    if not found.regions and not found.invalid:
        reasons = (*unmatched_notes(found.classes, options), *left_out_notes(found.left_out))
        left = "".join(f" ({note.en})" for note in reasons)
        raise RegionError(
            f"the region file has no region for slide {slide_id!r}{left}", where=str(path)
        )
    if invalid is not None:
        invalid += found.invalid
    elif found.invalid:
        raise RegionError(found.invalid[0].reason, where=str(path))
    if notes is not None:
        notes += unmatched_notes(found.classes, options)
        notes += [*file.notes, *left_out_notes(found.left_out), *found.notes, *checks]
    regions = {_named_region(region, slide_id): region for region in found.regions}
    repeats = _drawn_before(store, regions, login=login, slide_id=slide_id)
    if notes is not None and repeats:
        notes.append(repeats_note(repeats))
    gone = {one for one, _ in repeats}
    new = [named for named, region in regions.items() if region not in gone]
    n_new = save_regions(store, new, login=login, track=track)
    return n_new, len(new) - n_new


def _drawn_before(
    store: Store, regions: Mapping[RegionInput, Region], *, login: str, slide_id: str
) -> list[tuple[Region, Region]]:
    """Return the regions where the account drew another one before, and that one.

    Other accounts read for themselves: their regions do not count.
    """
    own_ids = {named.region_id for named in regions}
    before = [
        Region(one.region_id, one.outline, one.labels)
        for one in list_regions(store, login=login, slide_id=slide_id)
        if one.login == login_key(login) and one.region_id not in own_ids
    ]
    return list(find_repeats(list(regions.values()), before))


def _check_number(n_regions: int, *, where: str | None = None) -> None:
    if n_regions > MAX_REGIONS:
        raise RegionError(
            f"the region file has {n_regions} objects, and an import takes at most {MAX_REGIONS}; "
            "export the glomeruli alone, or split the file",
            where=where,
        )


def _leave_out_outside(found: Selection, slide: Slide) -> None:
    """Move the regions that lie outside the slide to those that are invalid."""
    inside: list[Region] = []
    width, height = slide.dimensions
    for one in found.regions:
        if slide.padded_share(one.box()) < 1.0:
            inside.append(one)
            continue
        reason = (
            f"the region lies outside the slide ({width} x {height}); give the region file of this "
            "slide, or --drawn-mpp if it was drawn on an image of another scale"
        )
        found.invalid.append(InvalidRegion(one.region_id, slide.slide_id, reason))
    found.regions = inside


def _slide_notes(
    slide: Slide, regions: Sequence[Region], options: RegionOptions, *, where: str
) -> list[RegionNote]:
    """Return notes on regions that lie on empty glass or have an unlikely size."""
    try:
        on_glass = regions_on_glass(slide, regions, options)
    except RegionError as error:
        raise RegionError(error.message, where=where) from error
    notes = [glass_note(slide.slide_id, on_glass)] if on_glass else []
    if slide.stated_mpp_xy is not None:
        doubts = _scale_doubts(slide, slide.slide_id, regions)
        notes += [RegionNote.of(one.text, **one.values) for one in doubts]
    return notes


def _scale_doubts(slide: Slide, slide_id: str, regions: Sequence[Region]) -> list[ScaleWarning]:
    sizes = region_size_warning(slide_id, regions, slide.mpp_xy)
    return [*slide.scale_warnings, *([] if sizes is None else [sizes])]


def _open_without_scale(slide: Path, options: RegionOptions) -> Slide:
    """Open a slide; one that states no scale gets any, unless a drawn mpp depends on it.

    Regions are kept in pixels, and glass looks alike at every scale.
    """
    opened = open_slide(slide)
    try:
        _ = opened.mpp_xy
    except MissingMppError as error:
        opened.close()
        if options.drawn_mpp is not None:
            raise MissingMppError(
                "the slide states no plausible micrometres per pixel, on which --drawn-mpp "
                "depends; import regions in pixels of the slide",
                where=str(slide),
            ) from error
        return open_slide(slide, mpp_override=1.0)
    return opened


def export_region_file(store: Store, path: Path, slide: Path, *, login: str) -> int:
    """Write the regions of a slide that an account may see as a region file; return how many.

    The suffix of the path chooses the format; ``.geojson`` is QuPath's.
    """
    with open_slide(slide) as opened:
        slide_id, offset = opened.slide_id, opened.bounds_offset
    regions = [
        Region(name_on_slide(one), one.outline, one.labels, one.slide_id)
        for one in list_regions(store, login=login, slide_id=slide_id)
    ]
    write_regions(regions, path, bounds_offset=offset)
    return len(regions)


def import_boxes(
    store: Store,
    file: Path,
    *,
    login: str,
    slide_id: str,
    frame: SlideFrame,
    track: Track = silent,
) -> int:
    """Import the regions of an uploaded file as boxes of the account; return how many it holds.

    A region that the account imported before keeps its present box. Of a malformed file nothing is
    imported; an object that is damaged or bounds no area is an error after the others are imported.
    """
    invalid: list[InvalidRegion] = []
    read = read_regions(file, frame=frame, slide_id=slide_id, invalid=invalid)
    _check_number(len(read) + len(invalid))
    single = count_once(read, mpp_xy=frame.mpp_xy or frame.stated_mpp_xy)
    invalid += [InvalidRegion(one.region_id, slide_id, why) for one, why in single.refused]
    regions = {_uploaded_region(region, login, slide_id): region for region in single.regions}
    if not regions and not invalid:
        raise RegionError(f"the uploaded file has no region for slide {slide_id!r}")
    known = known_regions(store, [one.region_id for one in regions])
    gone = {one for one, _ in _drawn_before(store, regions, login=login, slide_id=slide_id)}
    new = [
        named
        for named, region in regions.items()
        if named.region_id not in known and region not in gone
    ]
    save_regions(store, new, login=login, track=track)
    if invalid:
        raise RegionError(
            f"{len(invalid)} region(s) of the file could not be imported, the first because: "
            f"{invalid[0].reason}; {len(regions)} other(s) were imported"
        )
    return len(regions)


def export_boxes(
    store: Store, file: Path, *, login: str, slide_id: str, bounds_offset: Point
) -> None:
    """Write the boxes of a slide that an account may see as QuPath GeoJSON."""
    drawn = list_regions(store, login=login, slide_id=slide_id)
    regions = [Region(_qupath_id(one.region_id), one.outline, one.labels) for one in drawn]
    write_regions(regions, file, bounds_offset=bounds_offset)


def name_on_slide(region: DrawnRegion) -> str:
    """Return the id of a region without the prefix that names its slide."""
    return region.region_id.removeprefix(f"{region.slide_id}:")


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
            shapes = [Region(one.region_id, one.outline, one.labels) for one in on_slide]
            doubts += _scale_doubts(slide, slide_id, shapes)
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
    image_id = crop_image_id(region.slide_id, name_on_slide(region))
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


def _named_region(region: Region, slide_id: str) -> RegionInput:
    """Give a region of a file the id and save key that it has each time the file is imported.

    Files number the regions of each slide from 1; the prefix keeps those of two slides apart.
    """
    name = region.region_id
    region_id = name if _is_uuid(name) else f"{slide_id}:{name.replace('/', '_')}"
    shape = f"glomerulab:{region_id}/{region.polygon}/{region.labels}"
    return _region_input(region, region_id, slide_id, save_key=str(uuid5(NAMESPACE_URL, shape)))


def _uploaded_region(region: Region, login: str, slide_id: str) -> RegionInput:
    """Give a region of an upload an id that depends on its account, name and shape."""
    name = f"{login}/{slide_id}/{region.region_id}/{region.polygon}"
    region_id = uuid5(NAMESPACE_OID, name).hex
    save_key = str(uuid5(NAMESPACE_OID, f"import {name}"))
    return _region_input(region, region_id, slide_id, save_key=save_key)


def _region_input(region: Region, region_id: str, slide_id: str, *, save_key: str) -> RegionInput:
    box = region.box()
    return RegionInput(
        region_id=region_id,
        slide_id=slide_id,
        box=box,
        expected_version=0,
        save_key=save_key,
        labels=region.labels,
        outline=None if region.polygon == box.corners() else region.polygon,
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _qupath_id(region_id: str) -> str:
    """Return a UUID with hyphens, as QuPath writes it, and any other id unchanged."""
    try:
        return str(UUID(region_id))
    except ValueError:
        return region_id
