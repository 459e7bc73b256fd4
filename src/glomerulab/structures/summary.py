"""The structures of a slide in numbers: areas, counts, shares of the cortex.

Every number is a range: counted where the segmenter is certain, where a structure is likely, and
wherever it is possible (`glomerulab.structures.maps.LAYERS`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from glomerulab.errors import GlomerulabError
from glomerulab.runtime.files import atomic_write, read_content

__all__ = [
    "EITHER",
    "STRUCTURES_FOLDER",
    "SUMMARY_FILE",
    "HardlyFound",
    "Range",
    "SlideSummary",
    "StructureSummary",
    "read_summary",
    "write_summary",
]

SUMMARY_FILE = "summary.json"
STRUCTURES_FOLDER = "structures"
"""In a predictions folder, with a folder of each slide that a detector outlined."""
TOLERANCE = 1e-9
ATROPHY = "atrophic_tubule"
FIBROSIS = "fibrosis"
EITHER = "atrophic_tubule_or_fibrosis"


class Range(NamedTuple):
    """A number with what it could be; low is at most likely, likely at most high."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True)
class StructureSummary:
    """All of one structure on a slide."""

    area_mm2: Range
    cortex_mm2: Range | None = None
    """The area within the likely cortex; None where the cortex is unknown."""
    share_of_cortex: Range | None = None
    """From 0 to 1; low and high over the certain, likely and possible cortex."""
    n: Range | None = None
    """Number of objects; None for areas."""
    n_in_cortex: Range | None = None
    """Objects with at least half of their pixels in the likely cortex."""
    n_at_edge: int | None = None
    """Likely objects that the slide's or the tissue's edge cuts."""


@dataclass(frozen=True, slots=True)
class HardlyFound:
    """Why a structure is not assessed."""

    segmenter: str
    """Name of its folder."""
    dice: float
    """On images that it never saw."""
    least_dice: float
    """From which a structure is assessed."""


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """All structures of a slide that the segmenter finds; one that it does not know is absent."""

    slide_id: str
    stain: str | None
    mpp: tuple[float, float]
    """Micrometres per pixel of the map, x and y."""
    structures: Mapping[str, StructureSummary]
    """By id; ``atrophic_tubule_or_fibrosis`` is the area that either covers."""
    glomeruli_per_mm2: Range | None = None
    """Glomeruli in the cortex per mm² of it; None where either is unknown."""
    notes: tuple[str, ...] = ()
    """Why a number is missing or doubtful, whole sentences in English."""
    not_assessed: Mapping[str, HardlyFound] = field(default_factory=dict)
    """By id, structures that the segmenter knows and hardly finds; they are not in `structures`."""

    @property
    def cortex_mm2(self) -> Range | None:
        """Area of the cortex; None where the segmenter does not know it."""
        cortex = self.structures.get("cortex")
        return None if cortex is None else cortex.area_mm2

    @property
    def atrophy_share(self) -> Range | None:
        """Share of the cortex that is atrophic tubule, from 0 to 1; None where unknown."""
        return self._share(ATROPHY)

    @property
    def fibrosis_share(self) -> Range | None:
        """Share of the cortex that is interstitial fibrosis, from 0 to 1; None where unknown."""
        return self._share(FIBROSIS)

    @property
    def atrophy_or_fibrosis_share(self) -> Range | None:
        """Share of the cortex that is either, from 0 to 1; None unless both are known."""
        return self._share(EITHER)

    def _share(self, structure_id: str) -> Range | None:
        found = self.structures.get(structure_id)
        return None if found is None else found.share_of_cortex


_SUMMARY = TypeAdapter(SlideSummary)


def write_summary(summary: SlideSummary, path: Path) -> None:
    """Write a summary as JSON; areas in mm², ranges as three numbers."""
    with atomic_write(path) as temporary:
        text = json.dumps(asdict(summary), indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_summary(path: Path) -> SlideSummary:
    """Read a summary.

    Raises
    ------
    GlomerulabError
        If the file is missing or is no summary, or a range in it cannot be one.
    """
    way_out = "run `glomerulab segment` again"
    content = read_content(path, "summary of structures", error=GlomerulabError, way_out=way_out)
    try:
        found = _SUMMARY.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise GlomerulabError(
            f"the summary of structures is damaged ({place}: {first['msg']}); {way_out}",
            where=str(path),
        ) from error
    if {ATROPHY, FIBROSIS} <= found.structures.keys() and EITHER not in found.structures:
        raise GlomerulabError(
            f"the summary of structures is damaged (it lacks {EITHER}); {way_out}", where=str(path)
        )
    for name, one in found.structures.items():
        for field_name, value in asdict(one).items():
            most = 1.0 if field_name == "share_of_cortex" else math.inf
            if isinstance(value, tuple) and not _is_range(value, most):
                raise GlomerulabError(
                    f"the summary of structures is damaged ({name}.{field_name} is no range: "
                    f"{', '.join(f'{end:g}' for end in value)}); {way_out}",
                    where=str(path),
                )
    return found


def _is_range(ends: Sequence[float], most: float) -> bool:
    """Return whether numbers are finite, in order, and from 0 to a limit."""
    low, likely, high = ends
    return 0 <= low <= likely <= high <= most + TOLERANCE and math.isfinite(high)
