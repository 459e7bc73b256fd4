"""Decide which objects of a region file are glomeruli, and place them on the slide.

The one meaning of all formats: an annotation is one glomerulus. Cells, tiles, detections, tissue
outlines and unwanted classes are left out and counted; an object that is damaged becomes an
`InvalidRegion` and never hides another.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import shapely
from shapely import Polygon, STRtree, make_valid, unary_union

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.tables import nfc
from glomerulab.slides.regions.features import (
    Feature,
    Part,
    RegionNote,
    RegionOptions,
    SlideFrame,
    class_key,
    rotated,
    split_class_option,
)
from glomerulab.slides.regions.overlaps import count_once, repeats_note
from glomerulab.slides.regions.parsing import (
    LABEL_SEPARATOR,
    InvalidRegion,
    slide_name,
    split_labels,
)
from glomerulab.slides.scale import SAME_MPP

__all__ = [
    "Selection",
    "class_counts",
    "class_keys",
    "drop_repeats",
    "left_out_notes",
    "on_slide",
    "select_regions",
    "unmatched_notes",
]

TISSUE_CLASSES = frozenset({"tissue", "tissue outline", "region", "ignore"})
"""Names that people give to outlines of tissue; QuPath's own end in ``*``."""
SPECK = 0.05
"""Parts below this share of the area of the largest part are specks of the drawing tool."""
NEAR = 0.25
"""Parts closer than this share of the largest one's diameter belong to one glomerulus."""
THINNEST = 1e-6
"""Least area, as a share of the squared length of the outline."""
FARTHEST = 1e9
"""Largest coordinate, in pixels."""
MOST_CLASSES = 10
N_PLACES = 5
"""How many places of a file a note lists."""
ASPECT_TOLERANCE = 0.005
"""Relative, besides the rounding of the image's sides to whole pixels."""
KINDS = {
    "cell": ("cell", "cells"),
    "tile": ("tile", "tiles"),
    "tmacore": ("TMA core", "TMA cores"),
    "detection": ("detection", "detections"),
}


@dataclass(slots=True)
class Selection:
    """The regions of a slide, and everything in its file that is none."""

    regions: list[Region] = field(default_factory=list)
    invalid: list[InvalidRegion] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Objects that are no glomeruli, by kind or class."""
    classes: Counter[str] = field(default_factory=Counter)
    """Objects by class name; empty for those without a class."""
    notes: list[RegionNote] = field(default_factory=list)
    """Other things that the user must know."""


def select_regions(
    features: Sequence[Feature],
    frame: SlideFrame,
    options: RegionOptions,
    *,
    slide_id: str | None = None,
    slide_names: Collection[str] = (),
) -> Selection:
    """Choose and place the regions of a slide.

    Parameters
    ----------
    features : sequence of Feature
        Of one file, which may be for several slides.
    slide_id : str, optional
        Leave out features that name another slide; the others get this id.
    slide_names : collection of str, default ()
        Further names of the slide, such as that of its file.

    Returns
    -------
    Selection
        Ids are unique on each slide, also for file systems that ignore case.
    """
    mine = features if slide_id is None else on_slide(features, (slide_id, *slide_names))
    found = Selection()
    wanted = options.labels_by_class()
    unwanted = {class_key(name) for name in options.skip_classes}
    named = dict(zip((one.place for one in mine), map(nfc, _ids(mine)), strict=True))
    taken: set[tuple[str | None, str]] = set()
    counts: Counter[str] = Counter()
    scaled: dict[tuple[float, float], float] = {}
    overruled: Counter[float] = Counter()
    skipped: dict[str, list[str]] = {}
    for one in mine:
        found.classes[LABEL_SEPARATOR.join(one.classes)] += 1
        if (reason := _left_out(one, wanted, unwanted)) is not None:
            if reason:
                found.left_out[reason] += 1
            continue
        if one.skipped is not None:
            skipped.setdefault(one.skipped, []).append(one.place)
            continue
        region_id = named[one.place]
        try:
            _check(one)
            factors = _factors(one, frame, options)
            if one.image_size is not None and factors != (1.0, 1.0) and options.drawn_mpp is None:
                scaled[one.image_size] = factors[0]
            if (stated := one.drawn_mpp) is not None and _is_overruled(stated, options):
                overruled[stated] += 1
            outlines, n_specks = _outlines(one)
        except RegionError as error:
            found.invalid.append(
                InvalidRegion(region_id, one.slide_id, _named(one.place, error.message))
            )
            continue
        counts["specks"] += n_specks
        counts["apart"] += len(outlines) > 1
        offset = (0.0, 0.0)
        if one.counts_from_bounds and not options.ignore_bounds:
            offset = frame.bounds_offset
        for number, part in enumerate(outlines, start=1):
            part_id = region_id if len(outlines) == 1 else f"{region_id}.{number}"
            found.regions.append(
                Region(
                    _unique(part_id, one.slide_id, taken),
                    _placed(part.outline, factors, offset),
                    _labels(one.classes, wanted),
                    one.slide_id,
                    holes=tuple(_placed(hole, factors, offset) for hole in part.holes),
                    source_id=one.own_id,
                    source_classes=one.classes or None,
                )
            )
    found.notes += [
        *_notes(counts, scaled, frame),
        *_overruled_notes(overruled, options),
        *_skipped_notes(skipped),
    ]
    return found


def drop_repeats(found: Selection, frame: SlideFrame, *, labels_matter: bool = True) -> None:
    """Leave one of the regions of a slide that share most of their area, and note the others.

    Parameters
    ----------
    labels_matter : bool, default True
        Whether classes become labels, so that two classes in one place are a contradiction; see
        `count_once`.
    """
    by_slide: dict[str | None, list[Region]] = {}
    for region in found.regions:
        by_slide.setdefault(region.slide_id, []).append(region)
    singles = [
        count_once(regions, mpp_xy=frame.mpp_xy or frame.stated_mpp_xy, labels_matter=labels_matter)
        for regions in by_slide.values()
    ]
    repeats = [pair for one in singles for pair in one.repeats]
    refused = [pair for one in singles for pair in one.refused]
    gone = {(one.slide_id, one.region_id) for one, _ in (*repeats, *refused)}
    if repeats:
        found.notes.append(repeats_note(repeats))
    found.invalid += [
        InvalidRegion(one.region_id, one.slide_id, f"region {one.region_id!r}: {reason}")
        for one, reason in refused
    ]
    found.regions = [one for one in found.regions if (one.slide_id, one.region_id) not in gone]


def on_slide(features: Sequence[Feature], names: Sequence[str]) -> list[Feature]:
    """Return the features that name no slide, and those that name one by its id or file name.

    The latter get the first name as their slide id.
    """
    known = set(map(slide_name, names)) | set(map(nfc, names))
    return [
        one if one.slide_id is None else replace(one, slide_id=names[0])
        for one in features
        if one.slide_id is None or known & {nfc(one.slide_id), slide_name(one.slide_id)}
    ]


def left_out_notes(left_out: Counter[str]) -> list[RegionNote]:
    """Return the sentence on the objects that are no glomeruli; none without any."""
    if not left_out:
        return []
    parts = [
        f"{n} {KINDS[kind][n != 1]}" if kind in KINDS else f"{n} × {kind}"
        for kind, n in left_out.most_common()
    ]
    return [
        RegionNote.of(
            "Left out because of kind or class: {parts} ({n} in all). Give --class NAME to take "
            "the objects of a class.",
            n=left_out.total(),
            parts=", ".join(parts),
        )
    ]


def class_counts(classes: Counter[str]) -> str:
    """List classes, as `Selection.classes` counts them, the most frequent first."""
    return ", ".join(
        f"{name or 'no class'} ({n}x)" for name, n in classes.most_common(MOST_CLASSES)
    )


def unmatched_notes(classes: Counter[str], options: RegionOptions) -> list[RegionNote]:
    """Return the note on classes that the options name and no object has."""
    present = {key for name in classes for key in class_keys(name)}
    given = (*(split_class_option(one)[0] for one in options.classes), *options.skip_classes)
    missing = [name for name in given if class_key(name) not in present]
    if not missing or not classes:
        return []
    return [
        RegionNote.of(
            "No object has the class {names} of --class or --skip-class; the classes are: "
            "{classes}.",
            names=", ".join(map(repr, missing)),
            classes=class_counts(classes),
        )
    ]


def _left_out(feature: Feature, wanted: dict[str, str | None], unwanted: set[str]) -> str | None:
    """Return the kind or class for which a feature is left out; None for a region.

    It is empty for an object that only holds others.
    """
    kind = re.sub(r"[\W_]", "", feature.object_type.casefold())
    if kind == "root":
        return ""
    names = _names(feature.classes)
    joined = LABEL_SEPARATOR.join(feature.classes)
    if kind in KINDS and not (kind == "detection" and names & wanted.keys()):
        return kind
    if names & unwanted:
        return joined
    if wanted:
        return None if names & wanted.keys() else joined or "no class"
    is_tissue = any(
        name.strip().endswith("*") or class_key(name) in TISSUE_CLASSES for name in feature.classes
    )
    return joined if is_tissue else None


def _names(classes: Sequence[str]) -> set[str]:
    """Return the keys under which an option may name an object of these classes."""
    return {class_key(name) for name in (*classes, LABEL_SEPARATOR.join(classes)) if name}


def class_keys(joined: str) -> set[str]:
    """Return the keys of a joined class name, as `Selection.classes` counts them."""
    return _names(split_labels(joined)) | {class_key(joined)}


def _labels(classes: tuple[str, ...], wanted: dict[str, str | None]) -> tuple[str, ...]:
    """Return the classes with those replaced that --class gives a label."""
    joined = wanted.get(class_key(LABEL_SEPARATOR.join(classes)))
    if joined is not None:
        return split_labels(joined)
    labels: list[str] = []
    for name in classes:
        label = wanted.get(class_key(name))
        labels += [name] if label is None else split_labels(label)
    return tuple(map(nfc, labels))


def _ids(features: Sequence[Feature]) -> list[str]:
    """Return the name of each feature where it is unique on its slide, else its id or number."""
    names = Counter((one.slide_id, one.name) for one in features)
    own_ids = Counter((one.slide_id, one.own_id) for one in features)
    return [
        one.name
        if one.name and names[one.slide_id, one.name] == 1
        else one.own_id
        if one.own_id and own_ids[one.slide_id, one.own_id] == 1
        else one.number
        for one in features
    ]


def _unique(region_id: str, slide_id: str | None, taken: set[tuple[str | None, str]]) -> str:
    """Return an id that no other region of the slide has, whatever the case of its letters."""
    found, number = region_id, 1
    while (slide_id, key := unicodedata.normalize("NFC", found).casefold()) in taken:
        number += 1
        found = f"{region_id}-{number}"
    taken.add((slide_id, key))
    return found


def _factors(feature: Feature, frame: SlideFrame, options: RegionOptions) -> tuple[float, float]:
    """Return what coordinates along x and y are multiplied by."""
    if options.drawn_mpp is not None:
        if frame.mpp_xy is None:
            raise RegionError(
                "the drawn mpp cannot be used, since the micrometres per pixel of the slide are "
                "not known; give them with --mpp-override, or mpp in the slides table"
            )
        return options.drawn_mpp / frame.mpp_xy[0], options.drawn_mpp / frame.mpp_xy[1]
    _check_scale(feature, frame)
    if feature.image_size is None or frame.size is None or feature.image_size == frame.size:
        return 1.0, 1.0
    (width, height), (full_width, full_height) = feature.image_size, frame.size
    across, down = full_width / width, full_height / height
    drawn = f"{width:g} x {height:g}"
    level_0 = f"{full_width} x {full_height}"
    if _is_same(across, down, min(width, height)):
        return across, down
    if _is_same(full_width / height, full_height / width, min(width, height)):
        raise RegionError(
            f"it was drawn on an image of {drawn} pixels, and the slide has {level_0}: the image "
            "was turned by a quarter, as viewers do by its EXIF orientation; draw on the image as "
            "the slide file holds it, or save it upright and extract from that"
        )
    raise RegionError(
        f"it was drawn on an image of {drawn} pixels, which is no scaled copy of the slide with "
        f"{level_0}; give the region file of this slide"
    )


def _is_overruled(stated: float, options: RegionOptions) -> bool:
    return options.drawn_mpp is not None and abs(stated / options.drawn_mpp - 1) > SAME_MPP


def _overruled_notes(overruled: Counter[float], options: RegionOptions) -> Iterator[RegionNote]:
    for stated, n in overruled.items():
        yield RegionNote.of(
            "{n} objects of the region file state {stated} µm per pixel, but {used} was given and "
            "is used.",
            n=n,
            stated=f"{stated:g}",
            used=f"{options.drawn_mpp:g}",
        )


def _check_scale(feature: Feature, frame: SlideFrame) -> None:
    """Refuse a region whose file states another scale than the slide."""
    drawn = feature.drawn_mpp
    known = [one for one in (frame.mpp_xy, frame.stated_mpp_xy) if one is not None]
    if drawn is None or not known:
        return
    if all(abs(drawn / mpp - 1) > SAME_MPP for mpp in chain(*known)):
        has = known[0][0]
        raise RegionError(
            f"it was drawn at {drawn:g} micrometres per pixel, and the slide has {has:g}; "
            f"give --drawn-mpp {drawn:g} if it was drawn on another copy of the slide, or "
            f"--drawn-mpp {has:g} if it was drawn on this one"
        )


def _is_same(across: float, down: float, shortest: float) -> bool:
    return abs(across / down - 1) <= ASPECT_TOLERANCE + 1 / shortest


def _check(feature: Feature) -> None:
    if feature.failure is not None:
        raise RegionError(feature.failure)


def _outlines(feature: Feature) -> tuple[list[Part], int]:
    """Return the outline of each glomerulus of a feature, and how many specks were dropped.

    Raises
    ------
    RegionError
        If it bounds no area.
    """
    parts = [_turned(_opened(part), feature.rotation) for part in feature.parts]
    parts = [part for part in parts if part.outline] or parts
    if not parts or not parts[0].outline:
        raise RegionError("it has no outline")
    areas = [_area(part) for part in parts]
    largest = max(area.area for area in areas)
    if not largest:
        points = max(len(part.outline) for part in parts)
        raise RegionError(
            "its outline bounds no area"
            if points >= 3
            else f"its outline has {points} points and needs 3"
        )
    kept = [n for n, area in enumerate(areas) if area.area >= SPECK * largest]
    n_specks = len(parts) - len(kept)
    if len(kept) == 1:
        return [parts[kept[0]]], n_specks
    groups = [kept] if feature.is_single else _near([areas[n] for n in kept], kept, largest)
    return [
        parts[group[0]] if len(group) == 1 else _joined([areas[n] for n in group])
        for group in groups
    ], n_specks


def _opened(part: Part) -> Part:
    """Return a part whose rings do not end where they begin."""
    return Part(_open_ring(part.outline), tuple(_open_ring(hole) for hole in part.holes))


def _open_ring(ring: tuple[Point, ...]) -> tuple[Point, ...]:
    return ring[:-1] if len(ring) > 3 and ring[0] == ring[-1] else ring


def _turned(part: Part, degrees: float) -> Part:
    if not degrees:
        return part
    return Part(tuple(rotated(part.outline, degrees)))


def _area(part: Part) -> shapely.Geometry:
    """Return the area of a part, made valid where its outline crosses itself; else an empty one."""
    if not all(math.isfinite(value) for point in part.outline for value in point):
        raise RegionError("it has a coordinate that is not finite")
    if any(abs(value) > FARTHEST for point in part.outline for value in point):
        raise RegionError("it has a coordinate that lies on no slide")
    if len(part.outline) < 3:
        return Polygon()
    ring = Polygon(part.outline)
    area = make_valid(ring)
    if holes := [make_valid(Polygon(hole)) for hole in part.holes if len(hole) >= 3]:
        area = area.difference(unary_union(holes))
    return area if THINNEST * ring.length**2 < area.area < math.inf else Polygon()


def _near(
    areas: Sequence[shapely.Geometry], numbers: Sequence[int], largest: float
) -> list[list[int]]:
    """Group parts that lie so close together that they are one glomerulus."""
    gap = NEAR * 2 * math.sqrt(largest / math.pi)
    merged = unary_union([area.buffer(gap / 2) for area in areas])
    tree = STRtree([area.representative_point() for area in areas])
    pieces = list(shapely.get_parts(merged))
    groups = [sorted(int(n) for n in tree.query(piece, "intersects")) for piece in pieces]
    return sorted([numbers[n] for n in group] for group in groups if group)


def _joined(areas: Sequence[shapely.Geometry]) -> Part:
    """Return the outline of the parts of one glomerulus: their union, or the hull around them."""
    union = unary_union(list(areas))
    if union.geom_type != "Polygon":
        union = union.convex_hull
    ring = [(float(x), float(y)) for x, y in union.exterior.coords[:-1]]
    return Part(tuple(ring))


def _placed(
    ring: Sequence[Point], factors: tuple[float, float], offset: Point
) -> tuple[Point, ...]:
    return tuple((x * factors[0] + offset[0], y * factors[1] + offset[1]) for x, y in ring)


def _named(place: str, message: str) -> str:
    return message if message.startswith(place) else f"{place}: {message}"


def _notes(
    counts: Counter[str], scaled: dict[tuple[float, float], float], frame: SlideFrame
) -> Iterator[RegionNote]:
    for (width, height), factor in scaled.items():
        full_width, full_height = frame.size or (0, 0)
        yield RegionNote.of(
            "Regions drawn on an image of {drawn} pixels are scaled {factor} times to the "
            "{level_0} pixels of the slide.",
            drawn=f"{width:g} x {height:g}",
            factor=f"{factor:.4g}",
            level_0=f"{full_width} x {full_height}",
        )
    n_specks, n_apart = counts["specks"], counts["apart"]
    if n_specks:
        yield RegionNote.of(
            "Specks dropped, parts of an annotation below {share} of its largest part: {n}.",
            n=n_specks,
            share=f"{SPECK:.0%}",
        )
    if n_apart:
        yield RegionNote.of(
            "Annotations whose parts lie apart, so that each part is a glomerulus: {n}.", n=n_apart
        )


def _skipped_notes(skipped: dict[str, list[str]]) -> Iterator[RegionNote]:
    for kind, places in skipped.items():
        n, more = len(places), len(places) - N_PLACES
        listed = ", ".join(places[:N_PLACES]) + (f", … (+{more})" if more > 0 else "")
        match kind:
            case "no geometry":
                yield RegionNote.of(
                    "Objects without a geometry, skipped: {n} ({places}).", n=n, places=listed
                )
            case "blank":
                yield RegionNote.of("Blank rows, skipped: {n} ({places}).", n=n, places=listed)
            case "negative":
                yield RegionNote.of(
                    "Negative regions, cut out of others, skipped: {n} ({places}).",
                    n=n,
                    places=listed,
                )
            case _:
                yield RegionNote.of(
                    "Points, lines or rulers without an area, skipped: {n} ({places}).",
                    n=n,
                    places=listed,
                )
