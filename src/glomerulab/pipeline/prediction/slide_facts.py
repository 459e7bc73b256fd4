"""What a report needs of the slides themselves: their size, a small map, the regions' outlines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cases.case_folder import SlideFacts
from glomerulab.cohort.slides_table import SlideEntry, regions_on
from glomerulab.errors import GlomerulabError
from glomerulab.geometry import Point
from glomerulab.images import write_image
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.files import dicom_reference
from glomerulab.slides.regions.files import InvalidRegion
from glomerulab.slides.regions.proposals import is_proposal
from glomerulab.slides.slide import Slide, open_slide

__all__ = ["SlidesRead", "read_slide_facts"]

MAPS_FOLDER = "maps"
MAP_PX = 1600
MAP_QUALITY = 85


@dataclass(frozen=True)
class SlidesRead:
    """Facts of the slides that could be opened, and the outlines on them."""

    facts: tuple[SlideFacts, ...]
    outlines: dict[tuple[str, str], tuple[Point, ...]]
    """By slide id and region id, level-0 pixels."""
    proposed: frozenset[tuple[str, str]] = frozenset()
    """Slide id and region id of those that a detector proposed and nobody drew."""
    bare: tuple[str, ...] = ()
    """Slides whose region file was read and holds no region for them."""


def read_slide_facts(
    entries: Sequence[SlideEntry],
    regions: Path,
    *,
    out: Path,
    mpp_override: float | None,
    stain: str | None,
) -> SlidesRead:
    """Read the slides' facts, and write a map of each.

    Parameters
    ----------
    entries : sequence of SlideEntry
    regions : Path
        As given to `extract`.
    out : Path
        Gets ``maps/``.
    mpp_override : float or None
    stain : str or None
        Of all slides, where they do not say.

    Returns
    -------
    SlidesRead
        A slide that cannot be read is left out: extracting its regions says why.
    """
    facts, outlines, bare = [], {}, []
    proposed: set[tuple[str, str]] = set()
    for entry in entries:
        try:
            with open_slide(entry.path, mpp_override=mpp_override or entry.mpp) as slide:
                facts.append(_facts(entry, slide, out, stain))
                offset = slide.bounds_offset
            invalid: list[InvalidRegion] = []  # extracting the regions says what is wrong
            found = regions_on(entry, regions, bounds_offset=offset, invalid=invalid)
            if not found and not invalid:
                bare.append(entry.slide_id)
            for region in found:
                outlines[entry.slide_id, region.region_id] = region.polygon
                if is_proposal(region):
                    proposed.add((entry.slide_id, region.region_id))
        except GlomerulabError:  # it stands in failures.csv, with its reason
            continue
    return SlidesRead(tuple(facts), outlines, frozenset(proposed), tuple(bare))


def _facts(entry: SlideEntry, slide: Slide, out: Path, stain: str | None) -> SlideFacts:
    width, height = slide.dimensions
    # Named by a hash: a slide may be called what no file can be.
    name = f"{hashed_name(entry.slide_id)}.jpg"
    path = make_folder(out / MAPS_FOLDER) / name
    if not path.is_file():
        write_image(slide.thumbnail(MAP_PX), path, jpeg_quality=MAP_QUALITY)
    return SlideFacts(
        slide_id=entry.slide_id,
        file_name=entry.path.name,
        patient_id=entry.patient_id,
        stain=entry.stain or slide.stain or stain,
        width=width,
        height=height,
        mpp=slide.mpp,
        bounds_offset=slide.bounds_offset,
        map_path=f"{MAPS_FOLDER}/{name}",
        dicom=dicom_reference(entry.path),
    )
