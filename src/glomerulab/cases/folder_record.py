"""What a case folder held when it was written, so that a later change is seen.

``case.json`` holds the hash of ``predictions.csv``, a digest of each row and of each picture, and
one of itself. It finds mistakes, not malice: who can change the files can write the record again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from glomerulab.cases.calls import GlomerulusCall, called_labels
from glomerulab.cases.thresholds import Thresholds, follows_thresholds
from glomerulab.predictions import DECISION_THRESHOLD, Head
from glomerulab.runtime.messages import count_noun
from glomerulab.taxonomy import Taxonomy

__all__ = ["Edit", "FolderRecord", "edit_text", "find_edits", "make_record", "with_facts"]

RECORD = "record"
"""The key of ``case.json`` that the record has, and its digest leaves out."""
SAME_PROBABILITY = 1e-6
"""Spreadsheets write fewer digits."""
N_LISTED = 5
NOT_IN_DIGEST = {"probabilities", "box", "distance", "sharpness"}
"""Compared otherwise, or in no count and on no page."""

EditKind = Literal[
    "missing",
    "added",
    "changed",
    "call",
    "reading",
    "picture",
    "facts",
    "correction",
    "order",
    "saved",
    "unrecorded",
]
HARMLESS = frozenset({"saved", "unrecorded"})
"""Another program saved the table with the same content; the folder is of an earlier version."""


class FolderRecord(BaseModel):
    """The content of a folder as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_rows: int
    table_sha256: str
    """Of ``predictions.csv``."""
    facts_sha256: str
    """Of the rest of ``case.json``."""
    rows: dict[str, dict[str, tuple[str, tuple[float, ...]]]]
    """By case and image: a digest of everything but the probabilities, and these."""
    pictures: dict[str, str]
    """SHA-256 of crops, overviews and saliency pictures by their path in the folder."""


@dataclass(frozen=True)
class Edit:
    """A difference between a folder and its record."""

    kind: EditKind
    case: str | None
    """None: of all cases."""
    names: tuple[str, ...] = ()
    """Images, or files of pictures."""


def case_of(call: GlomerulusCall) -> str:
    """Return the case of a call: its patient, else its slide, else itself."""
    return call.patient_id or call.slide_id or call.image_id


def make_record(
    folder: Path,
    table: Path,
    calls: Sequence[GlomerulusCall],
    facts: Mapping[str, Any],
    maps: Iterable[tuple[str, str]],
) -> FolderRecord:
    """Return the record of a folder.

    Parameters
    ----------
    table : Path
        The file of `calls`.
    facts : mapping
        The JSON of ``case.json``.
    maps : iterable of (str, str)
        Case and path of each overview picture.
    """
    rows: dict[str, dict[str, tuple[str, tuple[float, ...]]]] = {}
    for call in calls:
        rows.setdefault(case_of(call), {})[call.image_id] = _row(call)
    pictures = {
        path: digest
        for _case, path in _pictures(calls, maps)
        if (digest := _file_digest(folder / path)) is not None
    }
    return FolderRecord(
        n_rows=len(calls),
        table_sha256=_file_digest(table) or "",
        facts_sha256=_facts_digest(facts),
        rows=rows,
        pictures=pictures,
    )


def with_facts(record: FolderRecord, facts: Mapping[str, Any]) -> FolderRecord:
    """Return the record of a folder whose ``case.json`` is rewritten."""
    return record.model_copy(update={"facts_sha256": _facts_digest(facts)})


def find_edits(
    folder: Path,
    table: Path,
    calls: Sequence[GlomerulusCall],
    facts: Mapping[str, Any],
    maps: Iterable[tuple[str, str]],
    *,
    record: FolderRecord | None,
    model: Thresholds,
) -> tuple[Edit, ...]:
    """Compare a folder with its record, and calls with their probabilities; see `make_record`."""
    taxonomy, head = model.taxonomy, model.head
    wrong = [(case_of(one), one.image_id) for one in calls if not _follows(one, taxonomy, head)]
    found = [*_grouped("call", wrong)]
    readings = [(case_of(one), one.image_id) for one in calls if not follows_thresholds(one, model)]
    found += _grouped("reading", [one for one in readings if one not in set(wrong)])
    if record is None:
        return (*found, Edit("unrecorded", None))
    rows = {(case_of(one), one.image_id): _row(one) for one in calls}
    known = {
        (case, name): row for case, by_name in record.rows.items() for name, row in by_name.items()
    }
    found += _grouped("missing", [key for key in known if key not in rows])
    found += _grouped("added", [key for key in rows if key not in known])
    changed = [key for key, row in rows.items() if key in known and not _same(row, known[key])]
    found += _grouped("changed", changed)
    other = [
        (case, path)
        for case, path in _pictures(calls, maps)
        if _file_digest(folder / path) not in {None, record.pictures.get(path)}
    ]
    found += _grouped("picture", other)
    if _facts_digest(facts) != record.facts_sha256 or len(known) != record.n_rows:
        found.append(Edit("facts", None))
    if not found and _file_digest(table) != record.table_sha256:
        found.append(Edit("saved", None))
    return tuple(found)


def edit_text(edits: Sequence[Edit], lines: Mapping[str, int]) -> str:
    """Return what was changed; `lines` are the lines of the images in the table."""
    nouns: dict[EditKind, tuple[str, str]] = {
        "missing": ("row is missing", "rows are missing"),
        "added": ("row was added", "rows were added"),
        "changed": ("row was changed", "rows were changed"),
        "call": (
            "call does not follow from its probabilities",
            "calls do not follow from their probabilities",
        ),
        "reading": (
            "image has states or reasons that do not follow from its numbers",
            "images have states or reasons that do not follow from their numbers",
        ),
        "picture": ("picture was changed", "pictures were changed"),
    }
    parts = []
    for kind, (one, several) in nouns.items():
        names = [name for edit in edits if edit.kind == kind for name in edit.names]
        if names:
            listed = ", ".join(
                f"{name!r} in line {lines[name]}" if name in lines else repr(name)
                for name in names[:N_LISTED]
            )
            more = f", … (+{len(names) - N_LISTED})" if len(names) > N_LISTED else ""
            parts.append(f"{count_noun(len(names), one, several)} ({listed}{more})")
    if any(edit.kind == "facts" for edit in edits):
        parts.append("case.json was changed")
    if {"missing", "added"} <= {edit.kind for edit in edits}:
        parts.append("a spreadsheet may have rewritten ids, such as 007 to 7")
    return "; ".join(parts)


def _grouped(kind: EditKind, keys: Iterable[tuple[str, str]]) -> Iterator[Edit]:
    by_case: dict[str, list[str]] = {}
    for case, name in keys:
        by_case.setdefault(case, []).append(name)
    return (Edit(kind, case, tuple(dict.fromkeys(names))) for case, names in by_case.items())


def _row(call: GlomerulusCall) -> tuple[str, tuple[float, ...]]:
    """Return a digest of what a count or page takes from a row, and its probabilities."""
    content = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in vars(call).items()
        if name not in NOT_IN_DIGEST and value not in (None, "", (), False)
    }
    if call.box is not None:
        content["box"] = astuple(call.box)
    return _digest(content)[:16], tuple(round(p, 9) for p in call.probabilities.values())


def _same(row: tuple[str, tuple[float, ...]], before: tuple[str, tuple[float, ...]]) -> bool:
    pairs = list(zip(row[1], before[1], strict=False))
    return (row[0], len(row[1])) == (before[0], len(before[1])) and all(
        abs(now - then) <= SAME_PROBABILITY for now, then in pairs
    )


def _follows(call: GlomerulusCall, taxonomy: Taxonomy, head: Head) -> bool:
    """Return whether the labels called are those that the probabilities give."""
    chances = call.probabilities
    if call.called is None:  # not assessed, whatever the probabilities
        return True
    if head == "softmax":
        (label,) = call.called
        return chances[label] >= max(chances.values()) - SAME_PROBABILITY
    expected = called_labels(chances, taxonomy, head)
    uncertain = {
        key for key, p in chances.items() if abs(p - DECISION_THRESHOLD) <= SAME_PROBABILITY
    }
    return call.called ^ expected <= uncertain


def _pictures(
    calls: Sequence[GlomerulusCall], maps: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    yield from maps
    for call in calls:
        for path in (call.image_path, call.saliency_path):
            if path is not None:
                yield case_of(call), path


def _file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it is not there or cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None


def _facts_digest(facts: Mapping[str, Any]) -> str:
    return _digest({name: value for name, value in facts.items() if name != RECORD})


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
