"""Regions that a detector proposed: the same files as drawn ones, marked as what they are.

The mark is the class of the region, so it goes through every region format and falls when a
person gives the region a class of their own, or draws it anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.runtime.files import atomic_write
from glomerulab.slides.regions.geojson import render_geojson
from glomerulab.slides.regions.parsing import load_json

__all__ = ["PROPOSAL_LABEL", "Proposal", "is_proposal", "read_scores", "write_proposals"]

PROPOSAL_LABEL = "Glomerulus proposal"
PROPOSAL_COLOUR = (230, 159, 0)
SCORE = "detector score"


@dataclass(frozen=True, slots=True)
class Proposal:
    """One region that a detector takes for a glomerulus."""

    region: Region
    """Classified as `PROPOSAL_LABEL`."""
    score: float
    """From 0 to 1; no probability: it orders proposals."""


def is_proposal(region: Region) -> bool:
    """Say whether a region still bears the mark of a detector."""
    return PROPOSAL_LABEL in region.labels


def write_proposals(
    proposals: Sequence[Proposal],
    path: Path,
    *,
    bounds_offset: Point,
    made_by: Mapping[str, object],
) -> None:
    """Write proposals as QuPath GeoJSON, with each score as a measurement.

    Parameters
    ----------
    proposals : sequence of Proposal
        May be empty.
    path : Path
        Replaced if it exists.
    bounds_offset : tuple of float
        `Slide.bounds_offset`, which QuPath's coordinates leave out.
    made_by : mapping of str to object
        Of the detector; kept as ``proposed_by``, which QuPath passes over.
    """
    content: dict[str, Any] = json.loads(
        render_geojson([one.region for one in proposals], bounds_offset=bounds_offset)
    )
    for feature, one in zip(content["features"], proposals, strict=True):
        properties = feature["properties"]
        properties["measurements"] = {SCORE: round(one.score, 4)}
        properties["metadata"] = {"proposed by": str(made_by.get("run", "a detector"))}
        properties["classification"]["color"] = list(PROPOSAL_COLOUR)
    content["proposed_by"] = dict(made_by)
    content["note"] = (
        "Proposed by a detector, drawn by no person. Research use only. Not a medical device."
    )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_scores(path: Path, *, made_by: Mapping[str, object]) -> dict[str, float] | None:
    """Return the scores in a file of proposals, if it is there and by this detector.

    Parameters
    ----------
    path : Path
    made_by : mapping of str to object
        As `write_proposals` was given it.

    Returns
    -------
    dict of str to float or None
        By region id; None where there is no file, or it is another detector's: it has to be made.

    Raises
    ------
    RegionError
        If the file is no longer what a detector wrote: somebody's work is not written over.
    """
    if not path.exists():
        return None
    content = load_json(path)
    try:
        author = content["proposed_by"]
        scores = {
            str(one["properties"]["name"]): float(one["properties"]["measurements"][SCORE])
            for one in content["features"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise RegionError(
            "was changed since the detector wrote it; give it with --regions and another --out, or "
            "move it away to have proposals made anew",
            where=str(path),
        ) from error
    return scores if author == dict(made_by) else None
