"""Import and export the shapes drawn on slides as region files, such as QuPath's GeoJSON.

A file may hold the proposals of a segmenter: polygons with holes, of any structure.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import NAMESPACE_OID, NAMESPACE_URL, UUID, uuid5

from glomerulab.apps.annotation.region_crops import scale_doubts
from glomerulab.apps.annotation.shapes import (
    GLOMERULUS,
    check_on_slide,
    is_glomerulus,
    mended_region,
    structure_of,
)
from glomerulab.apps.annotation.store.accounts import login_key
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.regions import (
    RegionInput,
    known_regions,
    list_regions,
    save_regions,
)
from glomerulab.errors import MissingMppError, RegionError
from glomerulab.geometry import Point, Region
from glomerulab.pipeline.region_checks import glass_note, regions_on_glass
from glomerulab.runtime.progress import Track, silent
from glomerulab.slides.regions.features import (
    DEFAULT_OPTIONS,
    Feature,
    RegionFile,
    RegionNote,
    RegionOptions,
    SlideFrame,
)
from glomerulab.slides.regions.files import InvalidRegion, read_region_file, write_regions
from glomerulab.slides.regions.overlaps import find_repeats, repeats_note
from glomerulab.slides.regions.parsing import LABEL_SEPARATOR
from glomerulab.slides.regions.selection import (
    Selection,
    drop_repeats,
    left_out_notes,
    select_regions,
    unmatched_notes,
)
from glomerulab.slides.slide import Slide, open_slide
from glomerulab.structures.classes import find_structure

logger = logging.getLogger(__name__)

MAX_REGIONS = 50_000
"""Objects of a region file that is imported; a biopsy has thousands of tubules."""
MAX_LOOKED_AT = 200
"""Shapes of which the tissue below is looked at, where a file has no glomeruli."""
N_NAMED = 5


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
        found = _select(file, frame, options, names=(slide_id, opened.path.name))
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
    """Return the regions where the account drew the same structure before, and that region.

    Other accounts read for themselves: their regions do not count.
    """
    own_ids = {named.region_id for named in regions}
    before = _by_structure(
        one.region()
        for one in list_regions(store, login=login, slide_id=slide_id)
        if one.login == login_key(login) and one.region_id not in own_ids
    )
    new = _by_structure(regions.values())
    return [pair for name in new for pair in find_repeats(new[name], before.get(name, []))]


def _by_structure(regions: Iterable[Region]) -> dict[str, list[Region]]:
    found: dict[str, list[Region]] = defaultdict(list)
    for one in regions:
        found[structure_of(one.labels)].append(one)
    return found


def _check_number(n_regions: int, *, where: str | None = None) -> None:
    if n_regions > MAX_REGIONS:
        raise RegionError(
            f"the region file has {n_regions} objects, and an import takes at most {MAX_REGIONS}; "
            "export the glomeruli alone, or split the file",
            where=where,
        )


def _select(
    file: RegionFile, frame: SlideFrame, options: RegionOptions, *, names: Sequence[str]
) -> Selection:
    """Choose the shapes of a slide, mend their outlines, and keep each glomerulus once.

    Other structures lie within each other, and a file of a segmenter holds all of them.
    """
    slide_id, *others = names
    features = [part for one in file.features for part in _separate_parts(one)]
    found = select_regions(features, frame, options, slide_id=slide_id, slide_names=others)
    _mend(found, slide_id, frame.size)
    structures = [one for one in found.regions if structure_of(one.labels) != GLOMERULUS]
    found.regions = [one for one in found.regions if structure_of(one.labels) == GLOMERULUS]
    drop_repeats(found, frame)
    found.regions += structures
    return found


def _separate_parts(feature: Feature) -> Iterator[Feature]:
    """Yield the parts of an area such as fibrosis one by one; those of a glomerulus are one."""
    area = find_structure(LABEL_SEPARATOR.join(feature.classes))
    if area is None or area.kind != "area" or len(feature.parts) < 2:
        yield feature
        return
    for number, part in enumerate(feature.parts, start=1):
        yield replace(
            feature,
            place=f"{feature.place}, part {number}",
            number=f"{feature.number}.{number}",
            parts=(part,),
        )


def _mend(found: Selection, slide_id: str, size: tuple[int, int] | None) -> None:
    """Mend outlines that cross themselves; those without area or outside the slide are invalid."""
    regions: list[Region] = []
    changed: list[str] = []
    for one in found.regions:
        try:
            mended = mended_region(one)
            if size is not None:
                check_on_slide(mended.box(), size)
        except RegionError as error:
            reason = f"region {one.region_id!r}: {error.message}"
            found.invalid.append(InvalidRegion(one.region_id, slide_id, reason))
            continue
        if mended != one:
            changed.append(one.region_id)
        regions.append(mended)
    found.regions = regions
    if changed:
        more = len(changed) - N_NAMED
        listed = ", ".join(changed[:N_NAMED]) + (f", … (+{more})" if more > 0 else "")
        found.notes.append(
            RegionNote.of(
                "Outlines that crossed themselves and were mended: {n} ({names}).",
                n=len(changed),
                names=listed,
            )
        )


def _slide_notes(
    slide: Slide, regions: Sequence[Region], options: RegionOptions, *, where: str
) -> list[RegionNote]:
    """Return notes on regions that lie on empty glass or have an unlikely size."""
    glomeruli = [one for one in regions if is_glomerulus(one.labels)]
    try:
        on_glass = regions_on_glass(slide, glomeruli or regions[:MAX_LOOKED_AT], options)
    except RegionError as error:
        raise RegionError(error.message, where=where) from error
    notes = [glass_note(slide.slide_id, on_glass)] if on_glass else []
    if slide.stated_mpp_xy is not None:
        doubts = scale_doubts(slide, slide.slide_id, glomeruli)
        notes += [RegionNote.of(one.text, **one.values) for one in doubts]
    return notes


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
        one.region(one.name_on_slide) for one in list_regions(store, login=login, slide_id=slide_id)
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
    content = read_region_file(file)
    _check_number(len(content.features))
    found = _select(content, frame, DEFAULT_OPTIONS, names=(slide_id,))
    for note in (*content.notes, *left_out_notes(found.left_out), *found.notes):
        logger.warning("upload for slide %s: %s", slide_id, note.en)
    invalid = found.invalid
    regions = {_uploaded_region(region, login, slide_id): region for region in found.regions}
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
    regions = [one.region(_qupath_id(one.region_id)) for one in drawn]
    write_regions(regions, file, bounds_offset=bounds_offset)


def _named_region(region: Region, slide_id: str) -> RegionInput:
    """Give a region of a file the id and save key that it has each time the file is imported.

    Files number the regions of each slide from 1; the prefix keeps those of two slides apart.
    """
    name = region.region_id
    region_id = name if _is_uuid(name) else f"{slide_id}:{name.replace('/', '_')}"
    shape = f"glomerulab:{region_id}/{region.polygon}/{region.labels}"
    if region.holes:
        shape += f"/{region.holes}"
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
        outline=None if region.polygon == box.corners() and not region.holes else region.polygon,
        holes=region.holes,
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
