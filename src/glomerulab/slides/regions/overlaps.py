"""Regions of a slide that share most of their area, so that each glomerulus is counted once.

An outline may be drawn twice, stand in two files, be drawn by a person and proposed by a detector,
or mark a segment of another one. Cost grows with the number of regions, not of pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely
from shapely import Polygon, STRtree, make_valid

from glomerulab.geometry import Point, Region
from glomerulab.runtime.messages import count_noun
from glomerulab.slides.regions.features import RegionNote, class_key
from glomerulab.slides.regions.proposals import PROPOSAL_LABEL, is_proposal
from glomerulab.slides.scale import GLOMERULUS_UM

__all__ = ["SingleRegions", "count_once", "find_repeats", "repeats_note", "repeats_text"]

MOST = 2 / 3
"""Share of the smaller area from which two regions are one glomerulus; of equal sizes, an
intersection over union (IoU) of 0.5."""
SAME_PLACE_IOU = 0.5
"""Above it they are two outlines of one glomerulus; below, one is a part of the other."""
SEVERAL = 1.5
"""Regions inside another are several if their union is this many times the largest of them."""
N_CIRCLE = 32
N_LISTED = 5


@dataclass(slots=True)
class SingleRegions:
    """The regions of a slide, each glomerulus once."""

    regions: list[Region] = field(default_factory=list)
    """In the order given."""
    repeats: list[tuple[Region, Region]] = field(default_factory=list)
    """Regions that are not counted, each with the one that is counted in its place."""
    refused: list[tuple[Region, str]] = field(default_factory=list)
    """Regions of which it cannot be known what they are, with the reason."""


def count_once(
    regions: Sequence[Region],
    *,
    mpp_xy: tuple[float, float] | None = None,
    labels_matter: bool = True,
    way_out: str = "leave it out with --skip-class, or delete it",
) -> SingleRegions:
    """Keep one of the regions that share most of their area.

    Of two outlines in one place, the drawn one is kept before a proposed one, one with a class
    before one without, the first before the second. Of a region inside another, the outer one is
    kept, unless it is larger than a glomerulus or encloses several: then the outer one is refused.

    Parameters
    ----------
    regions : sequence of Region
        Of one slide, in level-0 pixels. A rectangle stands for the ellipse in it, as boxes of
        neighbours overlap where the glomeruli do not.
    mpp_xy : tuple of float, optional
        Micrometres per level-0 pixel. With it, only regions as large as a glomerulus are several;
        smaller ones mark segments.
    labels_matter : bool, default True
        Refuse regions in one place whose classes differ, as either may be right.
    way_out : str, optional
        What the user can do about an outer region that is refused.
    """
    shapes = _Shapes(regions)
    waiting = np.ones(len(regions), dtype=np.bool_)
    kept: dict[int, int] = {}
    refused: dict[int, str] = {}
    order = sorted(
        range(len(regions)), key=lambda n: (is_proposal(regions[n]), -shapes.sizes[n], n)
    )
    for seed in order:
        if not waiting[seed]:
            continue
        waiting[seed] = False
        found, ious = shapes.sharing(seed, waiting)
        inside = found[(ious < SAME_PLACE_IOU) & (shapes.sizes[found] < shapes.sizes[seed])]
        enclosed = [regions[n] for n in inside]
        if _is_too_large(regions[seed], enclosed, mpp_xy) or _encloses_several(
            regions[seed], enclosed, shapes.areas[inside], mpp_xy
        ):
            refused[seed] = (
                f"it encloses {count_noun(len(inside), 'other region')}, such as "
                f"{enclosed[0].region_id!r}, and is no glomerulus; {way_out}"
            )
            continue
        waiting[found] = False
        group = [seed, *map(int, found)]
        same = [seed, *map(int, found[ious >= SAME_PLACE_IOU])]
        best = min(same, key=lambda n: (is_proposal(regions[n]), not _classes(regions[n]), n))
        wrong = _conflict([regions[n] for n in group], regions[best]) if labels_matter else None
        if wrong is None:
            kept |= dict.fromkeys(group, best)
        else:
            refused |= {n: _conflict_text(regions[n], regions[best], wrong) for n in group}
    return SingleRegions(
        [one for n, one in enumerate(regions) if kept.get(n) == n],
        [(regions[n], regions[best]) for n, best in sorted(kept.items()) if n != best],
        [(regions[n], reason) for n, reason in sorted(refused.items())],
    )


def find_repeats(
    regions: Sequence[Region], present: Sequence[Region]
) -> Iterator[tuple[Region, Region]]:
    """Yield the regions that share most of their area with one that is present, and that one.

    Parameters
    ----------
    regions, present : sequence of Region
        Of one slide, in level-0 pixels.
    """
    known = _Shapes(present)
    everything = np.ones(len(present), dtype=np.bool_)
    shapes = _Shapes(regions)
    for region, area in zip(regions, shapes.areas, strict=True):
        found, shares = known.sharing_area(area, everything)
        if len(found):
            yield region, present[int(found[shares.argmax()])]


def repeats_note(repeats: Sequence[tuple[Region, Region]]) -> RegionNote:
    """Return the sentence on regions that are not counted, since another is."""
    return RegionNote.of(
        "Regions that share most of their area with another and are counted once, as that one: "
        "{n} ({pairs}).",
        n=len(repeats),
        pairs=repeats_text([(one.region_id, counted.region_id) for one, counted in repeats]),
    )


def repeats_text(pairs: Sequence[tuple[str, str]]) -> str:
    """Return the first names that are not counted, each with the one counted in its place."""
    more = len(pairs) - N_LISTED
    listed = ", ".join(f"{one} = {counted}" for one, counted in pairs[:N_LISTED])
    return listed + (f", … (+{more})" if more > 0 else "")


class _Shapes:
    """The areas of regions, found by their place."""

    def __init__(self, regions: Sequence[Region]) -> None:
        self.areas = np.array([_area(one) for one in regions], dtype=object)
        self.sizes: npt.NDArray[np.float64] = shapely.area(self.areas).astype(np.float64)
        self._tree = STRtree(self.areas)

    def sharing(
        self, seed: int, among: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Return the regions that share most of their area with one, and the IoU of each."""
        found, shares = self.sharing_area(self.areas[seed], among)
        shared = shares * np.minimum(self.sizes[found], self.sizes[seed])
        return found, shared / (self.sizes[found] + self.sizes[seed] - shared)

    def sharing_area(
        self, area: shapely.Geometry, among: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Return the regions that share most of their area with an area, and the share of each."""
        near = np.sort(self._tree.query(area))
        near = near[among[near]]
        if not len(near):
            return near, np.zeros(0)
        shared = shapely.area(shapely.intersection(self.areas[near], area))
        smaller = np.minimum(self.sizes[near], area.area)
        shares = np.divide(shared, smaller, out=np.zeros(len(near)), where=smaller > 0)
        is_most = shares >= MOST
        return near[is_most], shares[is_most]


def _area(region: Region) -> shapely.Geometry:
    area = _valid(_ellipse(region.polygon) or region.polygon)
    for hole in region.holes:
        area = area.difference(_valid(hole))
    return area


def _valid(ring: Sequence[Point]) -> shapely.Geometry:
    area = Polygon(ring)
    # Without lines, which the intersection of mixed collections does not allow.
    structure = {"method": "structure", "keep_collapsed": False}
    return area if area.is_valid else make_valid(area, **structure)


def _ellipse(outline: tuple[Point, ...]) -> list[Point] | None:
    """Return the ellipse in an upright rectangle; None for another outline."""
    xs, ys = sorted({x for x, _ in outline}), sorted({y for _, y in outline})
    if len(outline) != 4 or (len(xs), len(ys), len(set(outline))) != (2, 2, 4):
        return None
    turns = np.linspace(0.0, 2 * np.pi, N_CIRCLE, endpoint=False)
    across = (xs[0] + xs[1]) / 2 + (xs[1] - xs[0]) / 2 * np.cos(turns)
    down = (ys[0] + ys[1]) / 2 + (ys[1] - ys[0]) / 2 * np.sin(turns)
    return list(zip(across.tolist(), down.tolist(), strict=True))


def _is_too_large(
    outer: Region, inside: Sequence[Region], mpp_xy: tuple[float, float] | None
) -> bool:
    return bool(inside) and mpp_xy is not None and _diameter(outer, mpp_xy) > GLOMERULUS_UM[1]


def _encloses_several(
    outer: Region,
    inside: Sequence[Region],
    areas: npt.NDArray[np.object_],
    mpp_xy: tuple[float, float] | None,
) -> bool:
    """Return whether regions inside another can be glomeruli and lie apart."""
    is_one = [
        (is_proposal(outer) or not is_proposal(one))  # proposals do not outvote a drawn outline
        and (mpp_xy is None or _diameter(one, mpp_xy) >= GLOMERULUS_UM[0])
        for one in inside
    ]
    if sum(is_one) < 2:
        return False
    areas = areas[is_one]
    return bool(shapely.union_all(areas).area >= SEVERAL * shapely.area(areas).max())


def _diameter(region: Region, mpp_xy: tuple[float, float]) -> float:
    box = region.box()
    return max(box.width * mpp_xy[0], box.height * mpp_xy[1])


def _classes(region: Region) -> frozenset[str]:
    return frozenset(class_key(name) for name in region.labels if name != PROPOSAL_LABEL)


def _conflict(group: Sequence[Region], best: Region) -> Region | None:
    """Return the first region that has another class than the one that would be counted."""
    classes = _classes(best)
    return next((one for one in group if _classes(one) not in {frozenset(), classes}), None)


def _conflict_text(region: Region, best: Region, wrong: Region) -> str:
    other = best if region is not best else wrong
    return (
        f"it shares most of its area with region {other.region_id!r}, and their classes differ "
        f"({_class_text(region)}; {_class_text(other)}); keep one of them, or choose the class of "
        "whole glomeruli with --class"
    )


def _class_text(region: Region) -> str:
    return " + ".join(region.labels) or "no class"
