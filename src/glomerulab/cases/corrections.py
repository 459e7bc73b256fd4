"""What people said instead of the model: an append-only file beside the predictions.

Nothing is ever changed or removed in it; of several entries for one image the last one counts. The
model's own call stays where it was. Entries of images that predictions made anew no longer hold
stay in the file and are told as such.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case_folder import CaseFolder
from glomerulab.cases.correction_rows import CorrectionRow, read_rows
from glomerulab.errors import PredictionsError, TaxonomyError
from glomerulab.geometry import Box
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "CORRECTIONS_FILE",
    "NOT_A_GLOMERULUS",
    "Correction",
    "OutdatedCorrection",
    "OutdatedReason",
    "box_text",
    "current_corrections",
    "labels_text",
    "outdated_corrections",
    "outdated_reason",
    "parse_time",
    "read_corrections",
    "reading_of",
]

CORRECTIONS_FILE = "overrides.csv"
NOT_A_GLOMERULUS = "not_a_glomerulus"
"""Stands in place of labels where an image shows none."""
SAME_PLACE = 0.5
"""Of two boxes, shared over joint area from which on they hold the same glomerulus."""

OutdatedReason = Literal["no_image", "moved", "other_labels", "superseded"]
"""Why an entry no longer applies: there is no such image; its region lies elsewhere now; it names
labels that the model does not have, or that exclude each other; a later entry of its image no
longer applies."""


@dataclass(frozen=True)
class Correction:
    """One person's word on one image."""

    time: str
    """UTC, ISO 8601."""
    by: str
    image_id: str
    reading: LabelSet
    """The labels that are present; None: no glomerulus."""
    reason: str

    @property
    def labels_text(self) -> str:
        """The reading as the file holds it."""
        return labels_text(self.reading)


@dataclass(frozen=True)
class OutdatedCorrection:
    """An entry that stands in the file and no longer applies to the predictions."""

    row: CorrectionRow
    why: OutdatedReason


def parse_time(time: str) -> dt.datetime | None:
    """Read the time of an entry; None where it is none. Without an offset it is UTC."""
    try:
        found = dt.datetime.fromisoformat(time)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def labels_text(reading: LabelSet) -> str:
    """Write a reading as the file holds it: label ids joined by ``+``."""
    return NOT_A_GLOMERULUS if reading is None else "+".join(sorted(reading))


def box_text(call: GlomerulusCall) -> str:
    """Write where an image lies on its slide as the file holds it; empty if it is not known."""
    box = call.box
    return "" if box is None else f"{box.x} {box.y} {box.width} {box.height}"


def read_corrections(case: CaseFolder) -> tuple[Correction, ...]:
    """Read the entries that apply, oldest first.

    Parameters
    ----------
    case : CaseFolder

    Returns
    -------
    tuple of Override
        Empty where nobody has changed anything.

    Raises
    ------
    PredictionsError
        If the file is damaged.
    """
    return current_corrections(_rows(case), case)


def outdated_corrections(case: CaseFolder) -> tuple[OutdatedCorrection, ...]:
    """Read the entries that no longer apply, oldest first.

    Parameters
    ----------
    case : CaseFolder

    Returns
    -------
    tuple of LostOverride
        Such as those of regions that were drawn anew under other names.

    Raises
    ------
    PredictionsError
        If the file is damaged.
    """
    judged = zip(rows := _rows(case), _whys(rows, case), strict=True)
    return tuple(OutdatedCorrection(row, why) for row, why in judged if why is not None)


def _rows(case: CaseFolder) -> tuple[CorrectionRow, ...]:
    return read_rows(case.folder / CORRECTIONS_FILE)


def current_corrections(rows: Sequence[CorrectionRow], case: CaseFolder) -> tuple[Correction, ...]:
    """Return those of some rows that apply, oldest first.

    Parameters
    ----------
    rows : sequence of OverrideRow
    case : CaseFolder

    Returns
    -------
    tuple of Override
    """
    judged = zip(rows, _whys(rows, case), strict=True)
    return tuple(_override(row, case.taxonomy) for row, why in judged if why is None)


def _whys(rows: Sequence[CorrectionRow], case: CaseFolder) -> list[OutdatedReason | None]:
    """Say of each row why it does not apply, or that it does (None).

    An entry before one that does not apply was no longer its people's word: it does not come back.
    """
    calls = {call.image_id: call for call in case.calls}
    lost: set[str] = set()
    found: list[OutdatedReason | None] = []
    for row in reversed(rows):
        why = outdated_reason(row, calls, case.taxonomy)
        if why is None and row.image_id in lost:
            why = "superseded"
        if why is not None:
            lost.add(row.image_id)
        found.append(why)
    return found[::-1]


def outdated_reason(
    row: CorrectionRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy
) -> OutdatedReason | None:
    """Say why a row does not apply by itself, or that it does (None).

    Parameters
    ----------
    row : OverrideRow
    calls : mapping of str to GlomerulusCall
        By image id.
    taxonomy : Taxonomy

    Returns
    -------
    LostReason or None
        Never ``superseded``: that takes the other rows.
    """
    call = calls.get(row.image_id)
    if call is None:
        return "no_image"
    if row.place and call.box is not None and not _is_same_place(row.place, call.box):
        return "moved"
    try:
        reading_of(row.labels, taxonomy, where="")
    except (PredictionsError, TaxonomyError):
        return "other_labels"
    return None


def _is_same_place(place: str, box: Box) -> bool:
    before = Box(*map(int, place.split()))
    shared = before.intersection_area(box)
    joint = before.width * before.height + box.width * box.height - shared
    return shared / joint >= SAME_PLACE


def _override(row: CorrectionRow, taxonomy: Taxonomy) -> Correction:
    reading = reading_of(row.labels, taxonomy, where=row.image_id)
    return Correction(row.time, row.by, row.image_id, reading, row.reason)


def reading_of(text: str, taxonomy: Taxonomy, *, where: str) -> LabelSet:
    """Take labels as the file holds them, or as a person types them.

    Parameters
    ----------
    text : str
        Ids or display names joined by ``+``, or ``not_a_glomerulus``.
    taxonomy : Taxonomy
    where : str
        Named in errors.

    Returns
    -------
    reading

    Raises
    ------
    PredictionsError
        If there is no label, or labels exclude each other.
    TaxonomyError
        If a label is unknown.
    """
    if text == NOT_A_GLOMERULUS:
        return None
    found = frozenset(taxonomy.find(word).id for word in text.split("+") if word.strip())
    if not found:
        raise PredictionsError("names no label", where=where)
    for first, second in taxonomy.conflicts(dict.fromkeys(found, 1)):
        raise PredictionsError(f"{first} and {second} exclude each other", where=where)
    return found
