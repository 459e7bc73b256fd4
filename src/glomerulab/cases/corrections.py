"""Corrections: labels that people give instead of the model's, in an append-only file.

``overrides.csv`` is beside the predictions. Its rows are never changed or removed; the last one
of an image counts, and the model's call stays in the predictions. Rows that no longer apply to
new predictions stay in the file and are reported as outdated.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from glomerulab.cases.calls import GlomerulusCall, LabelSet
from glomerulab.cases.case_folder import CaseFolder
from glomerulab.cases.correction_rows import (
    WHERE_FROM,
    CorrectionRow,
    LostRows,
    append_rows,
    lost_rows,
    read_rows,
    refuse_lost_rows,
)
from glomerulab.errors import PredictionsError, TaxonomyError
from glomerulab.geometry import Box
from glomerulab.runtime.messages import did_you_mean
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "CORRECTIONS_FILE",
    "NOT_A_GLOMERULUS",
    "Correction",
    "CorrectionConflictError",
    "CorrectionRow",
    "OutdatedCorrection",
    "OutdatedCorrectionError",
    "add_correction",
    "box_text",
    "call_text",
    "import_corrections",
    "labels_text",
    "lost_corrections",
    "parse_time",
    "submit_correction",
]

CORRECTIONS_FILE = "overrides.csv"
NOT_A_GLOMERULUS = "not_a_glomerulus"
"""In place of labels where an image shows no glomerulus."""
SEE_TABLE = "; its predictions.csv lists them in the column image_id"
MIN_SAME_PLACE_IOU = 0.5
MAX_CLOCK_DIFFERENCE = dt.timedelta(minutes=5)
"""Between two computers; a correction with a later time was made by a wrong clock."""

OutdatedReason = Literal["no_image", "moved", "other_labels", "superseded"]
"""Why a row no longer applies: its image does not exist; its region lies elsewhere; its labels are
unknown to the model or exclude each other; a later row of its image no longer applies."""


@dataclass(frozen=True)
class Correction:
    """One person's labels for one image."""

    time: str
    """UTC, ISO 8601."""
    by: str
    image_id: str
    labels: LabelSet
    reason: str

    @property
    def labels_text(self) -> str:
        """The labels as the file holds them."""
        return labels_text(self.labels)


@dataclass(frozen=True)
class OutdatedCorrection:
    """A row of the file that no longer applies to the predictions."""

    row: CorrectionRow
    why: OutdatedReason


@dataclass(frozen=True)
class ImportedCorrections:
    """Result of importing a file of corrections."""

    added: tuple[Correction, ...]
    already_present: tuple[Correction, ...]
    """Added by an earlier import."""
    conflicts: tuple[tuple[Correction, Correction], ...]
    """Not added, each with a later correction of the same image that its author may not know."""


class OutdatedCorrectionError(PredictionsError):
    """A correction of an image that these predictions do not contain.

    Parameters
    ----------
    why : {"no_image", "moved"}
    where : str
        The file and row, or the form.
    """

    def __init__(self, image_id: str, why: str, *, where: str) -> None:
        problem = {
            "no_image": f"there is no image {image_id!r} in the predictions",
            "moved": f"the region of image {image_id!r} lies elsewhere in these predictions",
        }
        super().__init__(
            f"{problem[why]}; give the predictions that the correction was made on, or remove it "
            "and correct the image as it is now",
            where=where,
        )
        self.why = why


class CorrectionConflictError(PredictionsError):
    """Another correction of the image was added since the page was shown.

    Parameters
    ----------
    latest : CorrectionRow or None
        The last row of the image; None if the file was removed.
    n_stored : int
        Rows of the image.
    """

    def __init__(self, latest: CorrectionRow | None, *, n_stored: int) -> None:
        super().__init__("somebody else corrected this call since the page was shown")
        self.latest = latest
        self.n_stored = n_stored


def parse_time(time: str) -> dt.datetime | None:
    """Return an ISO 8601 time in UTC, which it is unless it has an offset; None if invalid."""
    try:
        found = dt.datetime.fromisoformat(time)
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):  # an offset that leaves the years 1 to 9999
        return None


def call_text(labels: LabelSet) -> str:
    """Write what the model called: `labels_text`, or ``not_assessed``."""
    return "not_assessed" if labels is None else labels_text(labels)


def labels_text(labels: LabelSet) -> str:
    """Write labels as the file holds them: ids joined by ``+``, or ``not_a_glomerulus``."""
    return NOT_A_GLOMERULUS if labels is None else "+".join(sorted(labels))


def parse_labels(text: str, taxonomy: Taxonomy, *, where: str | None = None) -> LabelSet:
    """Read ids or display names joined by ``+``, or ``not_a_glomerulus``."""
    if text == NOT_A_GLOMERULUS:
        return None
    found = frozenset(taxonomy.find(name).id for name in text.split("+") if name.strip())
    if not found:
        raise PredictionsError("the correction names no label", where=where)
    for first, second in taxonomy.conflicts(dict.fromkeys(found, 1)):
        raise PredictionsError(
            f"labels {first} and {second} exclude each other; give one of them", where=where
        )
    return found


def box_text(call: GlomerulusCall) -> str:
    """Write the box of an image as the column ``place`` holds it; empty if it has none."""
    box = call.box
    return "" if box is None else f"{box.x} {box.y} {box.width} {box.height}"


def read_corrections(
    case: CaseFolder,
) -> tuple[tuple[Correction, ...], tuple[OutdatedCorrection, ...]]:
    """Read the corrections that apply and those that are outdated, each oldest first."""
    return _split(read_rows(case.folder / CORRECTIONS_FILE), case)


def lost_corrections(case: CaseFolder) -> LostRows:
    """Return which corrections were removed or changed since they were acknowledged.

    Raises
    ------
    PredictionsError
        If there are any, unless the folder was read with `accept_edits`.
    """
    path = case.folder / CORRECTIONS_FILE
    lost = lost_rows(path)
    if not case.accepts_edits:
        refuse_lost_rows(path, lost)
    return lost


def _split(
    rows: Sequence[CorrectionRow], case: CaseFolder
) -> tuple[tuple[Correction, ...], tuple[OutdatedCorrection, ...]]:
    """Separate the rows that apply from those that do not.

    A row before an outdated one of the same image was already replaced: it does not apply again.
    """
    calls = {call.image_id: call for call in case.calls}
    outdated_images: set[str] = set()
    current: list[Correction] = []
    outdated: list[OutdatedCorrection] = []
    for row in reversed(rows):
        why = _why_outdated(row, calls, case.taxonomy)
        if why is None and row.image_id in outdated_images:
            why = "superseded"
        if why is None:
            current.append(_correction(row, case.taxonomy, where=row.image_id))
        else:
            outdated_images.add(row.image_id)
            outdated.append(OutdatedCorrection(row, why))
    return tuple(reversed(current)), tuple(reversed(outdated))


def _why_outdated(
    row: CorrectionRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy
) -> OutdatedReason | None:
    """Return why a row by itself does not apply; None if it does."""
    call = calls.get(row.image_id)
    if call is None:
        return "no_image"
    if row.place and call.box is not None and not _is_same_place(row.place, call.box):
        return "moved"
    try:
        parse_labels(row.labels, taxonomy, where="")
    except (PredictionsError, TaxonomyError):
        return "other_labels"
    return None


def _is_same_place(place: str, box: Box) -> bool:
    return Box(*map(int, place.split())).iou(box) >= MIN_SAME_PLACE_IOU


def _correction(row: CorrectionRow, taxonomy: Taxonomy, *, where: str) -> Correction:
    labels = parse_labels(row.labels, taxonomy, where=where)
    return Correction(row.time, row.by, row.image_id, labels, row.reason)


def _row(entry: Correction, call: GlomerulusCall) -> CorrectionRow:
    return CorrectionRow(
        entry.time, entry.by, entry.image_id, entry.labels_text, entry.reason, box_text(call)
    )


def add_correction(
    case: CaseFolder, image_id: str, *, labels: Sequence[str], by: str, reason: str
) -> Correction:
    """Append one correction, on disk when this returns.

    Parameters
    ----------
    labels : sequence of str
        Ids or display names; or only ``not_a_glomerulus``.
    by : str
        Name of the person.

    Raises
    ------
    PredictionsError
        If there is no such image, labels exclude each other, name or reason are empty, or an
        earlier correction was removed from the file, see `lost_corrections`.
    TaxonomyError
        If a label is unknown.
    OutputError
        If the file cannot be written.
    """
    call = next((call for call in case.calls if call.image_id == image_id), None)
    if call is None:
        similar = did_you_mean(image_id, [one.image_id for one in case.calls])
        raise PredictionsError(
            f"there is no image {image_id!r} in the predictions{similar or SEE_TABLE}",
            where=str(case.folder),
        )
    if not by.strip() or not reason.strip():
        raise PredictionsError("a correction needs the person's name and a reason")
    found = parse_labels("+".join(labels), case.taxonomy)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    entry = Correction(now, by.strip(), image_id, found, reason.strip())
    lost_corrections(case)
    append_rows(case.folder / CORRECTIONS_FILE, lambda _stored: [_row(entry, call)])
    return entry


def submit_correction(case: CaseFolder, change: CorrectionRow, *, n_seen: int) -> int:
    """Append a correction unless its image was corrected since its author looked.

    Parameters
    ----------
    change : CorrectionRow
        Stored with its own time. One that is already stored is not added again.
    n_seen : int
        Rows of its image that its author saw, as `Case.n_corrections` counts them.

    Returns
    -------
    int
        Rows of its image up to this one: what its author has seen now.

    Raises
    ------
    CorrectionConflictError
        If there are more rows, or fewer; nothing is added.
    PredictionsError
        As `import_corrections` raises it.
    OutputError
        If the file cannot be written.
    """
    calls = {call.image_id: call for call in case.calls}
    entry = _checked(change, calls, case.taxonomy, where="the correction")
    row = _row(entry, calls[entry.image_id])
    n_now = n_seen

    def choose(rows: tuple[CorrectionRow, ...]) -> list[CorrectionRow]:
        nonlocal n_now
        stored = [one for one in rows if one.image_id == row.image_id]
        keys = [one.key for one in stored]
        if row.key in keys:  # sent twice, since the response was lost
            n_now = keys.index(row.key) + 1
            return []
        if len(stored) != n_seen:
            raise CorrectionConflictError(stored[-1] if stored else None, n_stored=len(stored))
        lost_corrections(case)
        n_now = n_seen + 1
        return [row]

    append_rows(case.folder / CORRECTIONS_FILE, choose)
    return n_now


def import_corrections(case: CaseFolder, path: Path) -> ImportedCorrections:
    """Append the corrections that the page of a report has saved, with their own times.

    Parameters
    ----------
    path : Path
        CSV with the columns of ``overrides.csv``. Importing it again adds nothing.

    Raises
    ------
    PredictionsError
        If a row is incomplete, has no name, reason or time, or names an image or label that does
        not exist, or an image whose region lies elsewhere now. Then no row is added.
    OutputError
        If the file cannot be written.
    """
    if not path.is_file():
        raise PredictionsError(
            f"there is no such file of corrections; {WHERE_FROM}", where=str(path)
        )
    calls = {call.image_id: call for call in case.calls}
    entries = [
        _checked(row, calls, case.taxonomy, where=f"{path}: row {line}")
        for line, row in enumerate(read_rows(path), start=2)
    ]
    present: list[Correction] = []
    added: list[Correction] = []
    conflicts: list[tuple[Correction, Correction]] = []

    def choose(rows: tuple[CorrectionRow, ...]) -> list[CorrectionRow]:
        stored, _ = _split(rows, case)
        keys = {row.key for row in rows}
        for entry in entries:
            time = _required_time(entry, where=str(path))
            later = [
                one
                for one in stored
                if one.image_id == entry.image_id
                and _required_time(one, where=str(case.folder / CORRECTIONS_FILE)) > time
            ]
            row = _row(entry, calls[entry.image_id])
            if row.key in keys or entry in (*stored, *added):
                present.append(entry)
            elif later:
                conflicts.append((entry, later[-1]))
            else:
                added.append(entry)
        return [_row(entry, calls[entry.image_id]) for entry in added]

    lost_corrections(case)
    if entries:
        append_rows(case.folder / CORRECTIONS_FILE, choose)
    return ImportedCorrections(tuple(added), tuple(present), tuple(conflicts))


def _checked(
    row: CorrectionRow, calls: Mapping[str, GlomerulusCall], taxonomy: Taxonomy, *, where: str
) -> Correction:
    """Return the correction of a complete row that applies to the predictions."""
    if not row.by.strip() or not row.reason.strip():
        raise PredictionsError("a correction needs the person's name and a reason", where=where)
    why = _why_outdated(row, calls, taxonomy)
    if why in {"no_image", "moved"}:
        raise OutdatedCorrectionError(row.image_id, why, where=where)
    entry = _correction(row, taxonomy, where=where)
    now = dt.datetime.now(dt.UTC)
    if _required_time(entry, where=where) > now + MAX_CLOCK_DIFFERENCE:
        raise PredictionsError(
            f"the time {entry.time} of the correction lies in the future (it is "
            f"{now.isoformat(timespec='seconds')}); set the clock of the computer that it was made "
            "on, and make the correction again",
            where=where,
        )
    return entry


def _required_time(entry: Correction, *, where: str) -> dt.datetime:
    found = parse_time(entry.time)
    if found is None:
        raise PredictionsError(
            f"the time {entry.time!r} is invalid; give one such as 2026-11-25T12:18:09+00:00",
            where=where,
        )
    return found
