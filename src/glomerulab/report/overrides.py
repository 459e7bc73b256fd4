"""What people said instead of the model: an append-only file beside the predictions.

Nothing is ever changed or removed in it; of several entries for one image the last one counts. The
model's own call stays where it was. Entries of images that predictions made anew no longer hold
stay in the file and are told as such.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glomerulab.calls import GlomerulusCall, Reading
from glomerulab.case_folder import CaseFolder
from glomerulab.errors import PredictionsError, TaxonomyError
from glomerulab.geometry import Box
from glomerulab.report.override_rows import OverrideRow, append_rows, read_rows
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "NOT_A_GLOMERULUS",
    "OVERRIDES_FILE",
    "AddedChanges",
    "LostImageError",
    "LostOverride",
    "LostReason",
    "Override",
    "OvertakenError",
    "add_changes",
    "add_override",
    "add_seen_change",
    "labels_text",
    "lost_overrides",
    "place_of",
    "read_overrides",
]

OVERRIDES_FILE = "overrides.csv"
NOT_A_GLOMERULUS = "not_a_glomerulus"
"""Stands in place of labels where an image shows none."""
SAME_PLACE = 0.5
"""Of two boxes, shared over joint area from which on they hold the same glomerulus."""

LostReason = Literal["no_image", "moved", "other_labels", "superseded"]
"""Why an entry no longer applies: there is no such image; its region lies elsewhere now; it names
labels that the model does not have, or that exclude each other; a later entry of its image no
longer applies."""


@dataclass(frozen=True)
class Override:
    """One person's word on one image."""

    time: str
    """UTC, ISO 8601."""
    by: str
    image_id: str
    reading: Reading
    """The labels that are present; None: no glomerulus."""
    reason: str

    @property
    def labels_text(self) -> str:
        """The reading as the file holds it."""
        return labels_text(self.reading)


@dataclass(frozen=True)
class LostOverride:
    """An entry that stands in the file and no longer applies to the predictions."""

    row: OverrideRow
    why: LostReason


class LostImageError(PredictionsError):
    """A change is of an image that these predictions do not hold.

    Parameters
    ----------
    image_id : str
    why : str
        ``no_image`` or ``moved``.
    where : str
        The change.
    """

    def __init__(self, image_id: str, why: str, *, where: str) -> None:
        said = {
            "no_image": f"no image {image_id!r} in the predictions",
            "moved": f"the region of image {image_id!r} lies elsewhere in these predictions",
        }
        super().__init__(
            f"{said[why]}; give those that the change was made on, or take it out and look at the "
            "image as it is now",
            where=where,
        )
        self.why = why


class OvertakenError(PredictionsError):
    """Somebody else changed the image since.

    Parameters
    ----------
    newest : OverrideRow or None
        The last entry of the image; None where the file was taken away.
    n_now : int
        Entries of the image.
    """

    def __init__(self, newest: OverrideRow | None, *, n_now: int) -> None:
        super().__init__("somebody else changed this call since the page was shown")
        self.newest = newest
        self.n_now = n_now


@dataclass(frozen=True)
class AddedChanges:
    """What became of a file of changes."""

    added: tuple[Override, ...]
    known: tuple[Override, ...]
    """Were added by an earlier call."""
    overtaken: tuple[tuple[Override, Override], ...]
    """Not added, each with a later entry of the same image that its author may not have seen."""


def labels_text(reading: Reading) -> str:
    """Write a reading as the file holds it: label ids joined by ``+``."""
    return NOT_A_GLOMERULUS if reading is None else "+".join(sorted(reading))


def place_of(call: GlomerulusCall) -> str:
    """Write where an image lies on its slide as the file holds it; empty if it is not known."""
    box = call.box
    return "" if box is None else f"{box.x} {box.y} {box.width} {box.height}"


def read_overrides(case: CaseFolder) -> tuple[Override, ...]:
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
    return _applying(_rows(case), case)


def lost_overrides(case: CaseFolder) -> tuple[LostOverride, ...]:
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
    return tuple(LostOverride(row, why) for row, why in judged if why is not None)


def _rows(case: CaseFolder) -> tuple[OverrideRow, ...]:
    return read_rows(case.folder / OVERRIDES_FILE)


def _applying(rows: Sequence[OverrideRow], case: CaseFolder) -> tuple[Override, ...]:
    judged = zip(rows, _whys(rows, case), strict=True)
    return tuple(_override(row, case.taxonomy) for row, why in judged if why is None)


def _whys(rows: Sequence[OverrideRow], case: CaseFolder) -> list[LostReason | None]:
    """Say of each row why it does not apply, or that it does (None).

    An entry before one that does not apply was no longer its people's word: it does not come back.
    """
    calls = {call.image_id: call for call in case.calls}
    lost: set[str] = set()
    found: list[LostReason | None] = []
    for row in reversed(rows):
        why = _why(row, calls, case.taxonomy)
        if why is None and row.image_id in lost:
            why = "superseded"
        if why is not None:
            lost.add(row.image_id)
        found.append(why)
    return found[::-1]


def _why(
    row: OverrideRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy
) -> LostReason | None:
    call = calls.get(row.image_id)
    if call is None:
        return "no_image"
    if row.place and call.box is not None and not _is_same_place(row.place, call.box):
        return "moved"
    try:
        _parsed(row.labels, taxonomy, where="")
    except (PredictionsError, TaxonomyError):
        return "other_labels"
    return None


def _is_same_place(place: str, box: Box) -> bool:
    before = Box(*map(int, place.split()))
    shared = before.intersection_area(box)
    joint = before.width * before.height + box.width * box.height - shared
    return shared / joint >= SAME_PLACE


def _override(row: OverrideRow, taxonomy: Taxonomy) -> Override:
    reading = _parsed(row.labels, taxonomy, where=row.image_id)
    return Override(row.time, row.by, row.image_id, reading, row.reason)


def add_override(
    case: CaseFolder, image_id: str, *, labels: Sequence[str], by: str, reason: str
) -> Override:
    """Add one entry, on disk when this returns.

    Parameters
    ----------
    case : CaseFolder
    image_id : str
    labels : sequence of str
        Ids or display names; or only ``not_a_glomerulus``.
    by : str
        Name of the person.
    reason : str

    Returns
    -------
    Override

    Raises
    ------
    PredictionsError
        If there is no such image or label, labels exclude each other, or name or reason are empty.
    OutputError
        If the file cannot be written.
    """
    call = next((call for call in case.calls if call.image_id == image_id), None)
    if call is None:
        raise PredictionsError(f"no image {image_id!r}", where=str(case.folder))
    if not by.strip() or not reason.strip():
        raise PredictionsError("a change needs the person's name and a reason")
    reading = _parsed("+".join(labels), case.taxonomy, where="labels")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    entry = Override(now, by.strip(), image_id, reading, reason.strip())
    append_rows(case.folder / OVERRIDES_FILE, lambda _stored: [_row(entry, call)])
    return entry


def _row(entry: Override, call: GlomerulusCall) -> OverrideRow:
    return OverrideRow(
        entry.time, entry.by, entry.image_id, entry.labels_text, entry.reason, place_of(call)
    )


def add_seen_change(case: CaseFolder, change: OverrideRow, *, n_seen: int) -> int:
    """Add one change, unless somebody else changed the same image since its author looked.

    Parameters
    ----------
    case : CaseFolder
    change : OverrideRow
        Kept with the time it was made at. One that is there already is not added again.
    n_seen : int
        Entries of its image that its author saw, as `ReportedCase.n_entries` counts them.

    Returns
    -------
    int
        Entries of its image up to this one: what its author has seen now.

    Raises
    ------
    OvertakenError
        If there are more entries, or fewer; nothing is added.
    PredictionsError
        As `add_changes` raises it.
    OutputError
        If the file cannot be written.
    """
    calls = {call.image_id: call for call in case.calls}
    entry = _change(change, calls, case.taxonomy, where="the change")
    row = _row(entry, calls[entry.image_id])
    n_now = n_seen

    def choose(rows: tuple[OverrideRow, ...]) -> list[OverrideRow]:
        nonlocal n_now
        mine = [one.said for one in rows if one.image_id == row.image_id]
        if row.said in mine:  # sent twice, since its answer did not arrive
            n_now = mine.index(row.said) + 1
            return []
        if len(mine) != n_seen:
            newest = [one for one in rows if one.image_id == row.image_id]
            raise OvertakenError(newest[-1] if newest else None, n_now=len(mine))
        n_now = n_seen + 1
        return [row]

    append_rows(case.folder / OVERRIDES_FILE, choose)
    return n_now


def add_changes(case: CaseFolder, path: Path) -> AddedChanges:
    """Add the changes that the page of a report has saved, with the times they were made at.

    Parameters
    ----------
    case : CaseFolder
    path : Path
        CSV of the columns of ``overrides.csv``. Adding it twice adds nothing twice.

    Returns
    -------
    AddedChanges

    Raises
    ------
    PredictionsError
        If one entry is not whole, has no name, reason or time, or names an image or label that is
        not there, or an image whose region lies elsewhere now; then none is added.
    OutputError
        If the file cannot be written.
    """
    if not path.is_file():
        raise PredictionsError("is no file", where=str(path))
    calls = {call.image_id: call for call in case.calls}
    changes = [
        _change(row, calls, case.taxonomy, where=f"{path}: entry {line}")
        for line, row in enumerate(read_rows(path), start=2)
    ]
    known: list[Override] = []
    added: list[Override] = []
    overtaken: list[tuple[Override, Override]] = []

    def choose(rows: tuple[OverrideRow, ...]) -> list[OverrideRow]:
        stored, said = _applying(rows, case), {row.said for row in rows}
        for change in changes:
            made = _instant(change, where=str(path))
            later = [one for one in stored if one.image_id == change.image_id
                     and _instant(one, where=str(case.folder / OVERRIDES_FILE)) > made]  # fmt: skip
            row = _row(change, calls[change.image_id])
            if row.said in said or change in (*stored, *added):
                known.append(change)
            elif later:
                overtaken.append((change, later[-1]))
            else:
                added.append(change)
        return [_row(change, calls[change.image_id]) for change in added]

    if changes:
        append_rows(case.folder / OVERRIDES_FILE, choose)
    return AddedChanges(tuple(added), tuple(known), tuple(overtaken))


def _change(
    row: OverrideRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy, *, where: str
) -> Override:
    """Take one change for what it says, or refuse it."""  # noqa: DOC501
    if not row.by.strip() or not row.reason.strip():
        raise PredictionsError("needs a name and a reason", where=where)
    why = _why(row, calls, taxonomy)
    if why in {"no_image", "moved"}:
        raise LostImageError(row.image_id, why, where=where)
    entry = Override(
        row.time, row.by, row.image_id, _parsed(row.labels, taxonomy, where=where), row.reason
    )
    _instant(entry, where=where)
    return entry


def _instant(entry: Override, *, where: str) -> dt.datetime:
    """Return when an entry was made."""  # noqa: DOC501
    try:
        found = dt.datetime.fromisoformat(entry.time)
    except ValueError as error:
        raise PredictionsError(f"no time: {entry.time!r}", where=where) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _parsed(text: str, taxonomy: Taxonomy, *, where: str) -> Reading:
    if text == NOT_A_GLOMERULUS:
        return None
    found = frozenset(taxonomy.find(word).id for word in text.split("+") if word.strip())
    if not found:
        raise PredictionsError("names no label", where=where)
    for first, second in taxonomy.conflicts(dict.fromkeys(found, 1)):
        raise PredictionsError(f"{first} and {second} exclude each other", where=where)
    return found
