"""Regions that a detector proposed, in the files of annotated regions.

The class of the region marks it as a proposal. Every region format keeps the class, and it is lost
when a person gives the region another class or draws it again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glomerulab.errors import RegionError
from glomerulab.geometry import Point, Region
from glomerulab.i18n.catalogue import LANGUAGES
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
    """Its class is `PROPOSAL_LABEL`."""
    score: float
    """From 0 to 1; it orders proposals and is not a probability."""


def is_proposal(region: Region) -> bool:
    """Return whether a region is an uncorrected proposal of a detector."""
    return PROPOSAL_LABEL in region.labels


def write_proposals(
    proposals: Sequence[Proposal],
    path: Path,
    *,
    bounds_offset: Point,
    made_by: Mapping[str, object],
    notes: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write proposals as QuPath GeoJSON, with each score as a measurement.

    Parameters
    ----------
    proposals : sequence of Proposal
        May be empty.
    path : Path
        Replaced if it exists.
    bounds_offset : tuple of float
        `Slide.bounds_offset`, subtracted for QuPath.
    made_by : mapping of str to object
        Facts of the detector, stored under ``proposed_by``, which QuPath ignores.
    notes : sequence of mapping, optional
        What the user must know of the proposals, by language.
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
    content["notes"] = [dict(note) for note in notes]
    content["note"] = (
        "Proposed by a detector, drawn by no person. Research use only. Not a medical device."
    )
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def read_scores(
    path: Path, *, made_by: Mapping[str, object]
) -> tuple[dict[str, float], list[dict[str, str]]] | None:
    """Return the scores by region id, and the notes, in a file of proposals of this detector.

    Parameters
    ----------
    made_by : mapping of str to object
        As given to `write_proposals`.

    Returns
    -------
    tuple of dict and list, or None
        None where there is no file, or one of another detector.

    Raises
    ------
    RegionError
        If the file was changed since the detector wrote it, so that it holds a person's work.
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
        notes: list[dict[str, str]] = [
            {language: str(note[language]) for language in LANGUAGES}
            for note in content.get("notes", ())
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise RegionError(
            f"{path.name} was changed since the detector wrote it; give it with --regions and "
            "another --out, or move it away to have new proposals made",
            where=str(path),
        ) from error
    return (scores, notes) if author == dict(made_by) else None
