"""Add what a person says of a call: checked, appended under a lock, on disk when it returns.

One change from a command, a file of them from the page of a report, or one from a page that knows
what it has seen: the same checks and the same file.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glomerulab.cases.calls import GlomerulusCall
from glomerulab.cases.case_folder import CaseFolder
from glomerulab.cases.correction_rows import CorrectionRow, append_rows, read_rows
from glomerulab.cases.corrections import (
    CORRECTIONS_FILE,
    Correction,
    box_text,
    current_corrections,
    outdated_reason,
    parse_time,
    reading_of,
)
from glomerulab.errors import PredictionsError
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "CorrectionConflictError",
    "ImportedCorrections",
    "OutdatedCorrectionError",
    "add_correction",
    "import_corrections",
    "submit_correction",
]


@dataclass(frozen=True)
class ImportedCorrections:
    """What became of a file of changes."""

    added: tuple[Correction, ...]
    known: tuple[Correction, ...]
    """Were added by an earlier call."""
    overtaken: tuple[tuple[Correction, Correction], ...]
    """Not added, each with a later entry of the same image that its author may not have seen."""


class OutdatedCorrectionError(PredictionsError):
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


class CorrectionConflictError(PredictionsError):
    """Somebody else changed the image since.

    Parameters
    ----------
    newest : OverrideRow or None
        The last entry of the image; None where the file was taken away.
    n_now : int
        Entries of the image.
    """

    def __init__(self, newest: CorrectionRow | None, *, n_now: int) -> None:
        super().__init__("somebody else changed this call since the page was shown")
        self.newest = newest
        self.n_now = n_now


def add_correction(
    case: CaseFolder, image_id: str, *, labels: Sequence[str], by: str, reason: str
) -> Correction:
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
    reading = reading_of("+".join(labels), case.taxonomy, where="labels")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    entry = Correction(now, by.strip(), image_id, reading, reason.strip())
    append_rows(case.folder / CORRECTIONS_FILE, lambda _stored: [_row(entry, call)])
    return entry


def _row(entry: Correction, call: GlomerulusCall) -> CorrectionRow:
    return CorrectionRow(
        entry.time, entry.by, entry.image_id, entry.labels_text, entry.reason, box_text(call)
    )


def submit_correction(case: CaseFolder, change: CorrectionRow, *, n_seen: int) -> int:
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
        As `import_corrections` raises it.
    OutputError
        If the file cannot be written.
    """
    calls = {call.image_id: call for call in case.calls}
    entry = _change(change, calls, case.taxonomy, where="the change")
    row = _row(entry, calls[entry.image_id])
    n_now = n_seen

    def choose(rows: tuple[CorrectionRow, ...]) -> list[CorrectionRow]:
        nonlocal n_now
        mine = [one.said for one in rows if one.image_id == row.image_id]
        if row.said in mine:  # sent twice, since its answer did not arrive
            n_now = mine.index(row.said) + 1
            return []
        if len(mine) != n_seen:
            newest = [one for one in rows if one.image_id == row.image_id]
            raise CorrectionConflictError(newest[-1] if newest else None, n_now=len(mine))
        n_now = n_seen + 1
        return [row]

    append_rows(case.folder / CORRECTIONS_FILE, choose)
    return n_now


def import_corrections(case: CaseFolder, path: Path) -> ImportedCorrections:
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
    known: list[Correction] = []
    added: list[Correction] = []
    overtaken: list[tuple[Correction, Correction]] = []

    def choose(rows: tuple[CorrectionRow, ...]) -> list[CorrectionRow]:
        stored, said = current_corrections(rows, case), {row.said for row in rows}
        for change in changes:
            made = _instant(change, where=str(path))
            later = [
                one
                for one in stored
                if one.image_id == change.image_id
                and _instant(one, where=str(case.folder / CORRECTIONS_FILE)) > made
            ]
            row = _row(change, calls[change.image_id])
            if row.said in said or change in (*stored, *added):
                known.append(change)
            elif later:
                overtaken.append((change, later[-1]))
            else:
                added.append(change)
        return [_row(change, calls[change.image_id]) for change in added]

    if changes:
        append_rows(case.folder / CORRECTIONS_FILE, choose)
    return ImportedCorrections(tuple(added), tuple(known), tuple(overtaken))


def _change(
    row: CorrectionRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy, *, where: str
) -> Correction:
    """Take one change for what it says, or refuse it."""
    if not row.by.strip() or not row.reason.strip():
        raise PredictionsError("needs a name and a reason", where=where)
    why = outdated_reason(row, calls, taxonomy)
    if why in {"no_image", "moved"}:
        raise OutdatedCorrectionError(row.image_id, why, where=where)
    entry = Correction(
        row.time, row.by, row.image_id, reading_of(row.labels, taxonomy, where=where), row.reason
    )
    _instant(entry, where=where)
    return entry


def _instant(entry: Correction, *, where: str) -> dt.datetime:
    """Return when an entry was made."""
    found = parse_time(entry.time)
    if found is None:
        raise PredictionsError(f"no time: {entry.time!r}", where=where)
    return found
