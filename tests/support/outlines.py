"""Summaries and folders as ``segment`` writes them, with chosen numbers."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from glomerulab.structures.summary import (
    SUMMARY_FILE,
    HardlyFound,
    Range,
    SlideSummary,
    StructureSummary,
    write_summary,
)
from glomerulab.structures.write import COLUMNS


def _range(value: float | Range) -> Range:
    return value if isinstance(value, Range) else Range(value, value, value)


def _of_cortex(share: float | Range, cortex: float) -> StructureSummary:
    shares = _range(share)
    area = Range(*(one * cortex for one in shares))
    return StructureSummary(area, area, shares if cortex else None, n=_range(10))


def outlined_slide(
    slide_id: str = "s1",
    *,
    cortex: float = 2.0,
    fibrosis: float | Range = 0.0,
    atrophy: float | Range = 0.0,
    tubules: float = 0.6,
    glomeruli: float | Range = 12,
    without: Sequence[str] = (),
    hardly_found: Mapping[str, float] | None = None,
) -> SlideSummary:
    """Return the summary of a slide; areas in mm², shares of the cortex from 0 to 1."""
    n = _range(glomeruli)
    either = Range(*(max(a, b) for a, b in zip(_range(atrophy), _range(fibrosis), strict=True)))
    structures = {
        "cortex": StructureSummary(_range(cortex)),
        "fibrosis": _of_cortex(fibrosis, cortex),
        "tubule": _of_cortex(tubules, cortex),
        "atrophic_tubule": _of_cortex(atrophy, cortex),
        "atrophic_tubule_or_fibrosis": _of_cortex(either, cortex),
        "artery": StructureSummary(_range(0.05), n=_range(4)),
        "glomerulus": StructureSummary(_range(0.2), n=n, n_in_cortex=n, n_at_edge=1),
        "sclerosed_glomerulus": StructureSummary(_range(0.01), n=_range(1)),
    }
    hardly = {name: HardlyFound("net", dice, 0.2) for name, dice in (hardly_found or {}).items()}
    for name in (*without, *hardly):
        del structures[name]
    return SlideSummary(slide_id, "PAS", (1.0, 1.0), structures, not_assessed=hardly)


def write_outlines(
    folder: Path,
    slides: Sequence[SlideSummary],
    *,
    arteries: Mapping[str, Sequence[float]] | None = None,
) -> list[Path]:
    """Write a folder as ``segment`` does, with arteries of given diameters in µm."""
    places = [folder / "slides" / one.slide_id for one in slides]
    for one, place in zip(slides, places, strict=True):
        place.mkdir(parents=True)
        write_summary(one, place / SUMMARY_FILE)
        with (place / "objects.csv").open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            for n, diameter in enumerate((arteries or {}).get(one.slide_id, (80.0, 100.0))):
                writer.writerow(
                    {
                        "object_id": f"artery-{n}",
                        "slide_id": one.slide_id,
                        "structure": "artery",
                        "certainty": "0.9",
                        "equivalent_diameter_um": diameter,
                    }
                )
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["slide_id", "folder"])
        table.writerows([one.slide_id, f"slides/{one.slide_id}"] for one in slides)
    return places
