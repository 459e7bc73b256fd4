"""A study as files: manifests with settled or soft labels, the paper's JSON, tables, the record.

Every table is written whole or not at all.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.apps.annotation.consensus import final_labels, soft_labels
from glomerulab.apps.annotation.records import Annotation, Image, Outcome, Study
from glomerulab.apps.annotation.store.ledger import Event
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import OutputError
from glomerulab.runtime.files import atomic_write

__all__ = [
    "annotations_table",
    "annotator_manifest",
    "final_manifest",
    "write_events",
    "write_table",
]


def final_manifest(outcomes: Sequence[Outcome], study: Study, *, soft: bool = False) -> Manifest:
    """Make the manifest of a study: its images with their settled labels.

    Parameters
    ----------
    outcomes : sequence of Outcome
    study : Study
    soft : bool, default False
        Also a column ``soft_<label>`` per label: the share of readers who set it, of those who
        judged it.

    Returns
    -------
    Manifest
        With all columns of the manifest the study began with, and ``n_readings`` and ``settled``:
        ``agreed``, ``majority``, ``third_reader``, ``consensus``, or, with all labels unknown,
        ``disagreed``, ``incomplete`` or ``stale`` (`final_labels`).
    """
    rows = []
    for one in outcomes:
        labels, grounds = final_labels(one, study.taxonomy, n_readers=study.settings.n_readers)
        row = {**_image_row(one), **labels, "n_readings": len(one.readings), "settled": grounds}
        if soft:
            said = [reading.judgement.labels for reading in one.readings]
            shares = soft_labels(said, study.taxonomy)
            row |= {f"soft_{label_id}": share for label_id, share in shares.items()}
        rows.append(row)
    return _manifest(rows, study)


def annotator_manifest(
    outcomes: Sequence[Outcome], annotations: Sequence[Annotation], study: Study, *, login: str
) -> Manifest:
    """Make the manifest of what one annotator said at first.

    Parameters
    ----------
    outcomes : sequence of Outcome
        All images of the study.
    annotations : sequence of Annotation
        The newest of each item.
    study : Study
    login : str

    Returns
    -------
    Manifest
        The images that the annotator has labelled.
    """
    said = {
        one.image_id: one.judgement.labels
        for one in annotations
        if (one.login, one.purpose) == (login, "first") and one.judgement.skip_reason is None
    }
    rows = [
        {**_image_row(one), **said[one.image.image_id]}
        for one in outcomes
        if one.image.image_id in said
    ]
    return _manifest(rows, study)


def annotations_table(
    annotations: Sequence[Annotation], images: Mapping[str, Image], label_ids: Sequence[str]
) -> pd.DataFrame:
    """Lay judgements out as a table, one row each.

    Parameters
    ----------
    annotations : sequence of Annotation
    images : mapping of str to Image
        By image id.
    label_ids : sequence of str

    Returns
    -------
    DataFrame
        Labels are 1, 0 or empty for unknown.
    """
    rows = [
        {
            "sequence": one.sequence,
            "image_id": one.image_id,
            "patient_id": images[one.image_id].patient_id,
            "annotator": one.login,
            "purpose": one.purpose,
            "version": one.version,
            "saved_at": one.saved_at.isoformat(),
            "seconds": one.seconds,
            **{label_id: one.judgement.labels.get(label_id) for label_id in label_ids},
            "unsure": int(one.judgement.unsure),
            "skip_reason": one.judgement.skip_reason,
            "note": one.judgement.note,
            "image_sha256": one.image_sha256,
            "model_shown": int(one.model_shown),
            "others_shown": int(one.others_shown),
            "source": one.source,
        }
        for one in annotations
    ]
    table = pd.DataFrame(rows, columns=_columns(label_ids))
    return table.astype(dict.fromkeys(label_ids, "Int8"))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, UTF-8.

    Parameters
    ----------
    table : DataFrame
    path : Path
        Ends in ``.csv``; replaced if it exists.

    Raises
    ------
    OutputError
        If the name ends otherwise.
    """
    if path.suffix.lower() != ".csv":
        raise OutputError("must end in .csv", where=str(path))
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def write_events(events: Iterable[Event], path: Path) -> int:
    """Write the record of a study, entry by entry, with the hashes that seal it.

    Parameters
    ----------
    events : iterable of Event
    path : Path
        Ends in ``.csv`` or ``.jsonl``; replaced if it exists.

    Returns
    -------
    int
        How many entries there were.

    Raises
    ------
    OutputError
        If the name ends otherwise.
    """
    if path.suffix.lower() not in {".csv", ".jsonl"}:
        raise OutputError("must end in .csv or .jsonl", where=str(path))
    n_events = 0
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, EVENT_COLUMNS, lineterminator="\n")
        if path.suffix.lower() == ".csv":
            writer.writeheader()
        for one in events:
            row = _event_row(one)
            if path.suffix.lower() == ".csv":
                writer.writerow({**row, "payload": _json(row["payload"])})
            else:
                stream.write(_json(row) + "\n")
            n_events += 1
    return n_events


EVENT_COLUMNS = (
    "sequence",
    "at",
    "actor",
    "kind",
    "subject",
    "version",
    "save_key",
    "payload",
    "previous_hash",
    "hash",
)


def _event_row(one: Event) -> dict[str, Any]:
    return {
        "sequence": one.sequence,
        "at": one.at.isoformat(timespec="microseconds"),
        "actor": one.actor,
        "kind": one.kind,
        "subject": one.subject,
        "version": one.version,
        "save_key": one.save_key,
        "payload": one.payload,
        "previous_hash": one.previous_hash,
        "hash": one.hash,
    }


def _json(value: object) -> str:
    # As in the ledger: the hash of a line can be computed by whoever reads it.
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _columns(label_ids: Sequence[str]) -> list[str]:
    return [
        "sequence",
        "image_id",
        "patient_id",
        "annotator",
        "purpose",
        "version",
        "saved_at",
        "seconds",
        *label_ids,
        "unsure",
        "skip_reason",
        "note",
        "image_sha256",
        "model_shown",
        "others_shown",
        "source",
    ]


def _image_row(one: Outcome) -> dict[str, Any]:
    image = one.image
    row: dict[str, Any] = {
        "image_id": image.image_id,
        "image_path": one.image_path,
        "patient_id": image.patient_id,
        "slide_id": image.slide_id,
        "stain": image.stain,
        "mpp": image.mpp,
    }
    if image.box is not None:
        box = image.box
        row |= {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
    if image.region_id is not None:
        row["region_id"] = image.region_id
    return row | dict(one.others)


def _manifest(rows: Sequence[Mapping[str, Any]], study: Study) -> Manifest:
    frame = pd.DataFrame(list(rows), columns=None if rows else ["image_id", "image_path"])
    return manifest_from_rows(
        frame.astype(object), folder=study.image_root, taxonomy=study.taxonomy
    )
