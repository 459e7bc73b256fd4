"""Export a study: manifests with final or soft labels, tables of annotations, and the ledger."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.apps.annotation.consensus import final_labels, soft_labels
from glomerulab.apps.annotation.records import Annotation, Image, ImageReadings, Study
from glomerulab.apps.annotation.store.ledger import HASHED_COLUMNS, Event, canonical_json
from glomerulab.cohort.manifest import Manifest, manifest_from_rows
from glomerulab.errors import OutputError
from glomerulab.runtime.files import atomic_write
from glomerulab.runtime.tables import not_a_formula, without_formulas

EVENT_COLUMNS = (*HASHED_COLUMNS, "hash")


def final_manifest(
    images: Sequence[ImageReadings], study: Study, *, soft: bool = False
) -> Manifest:
    """Return the manifest of a study: its images with their final labels.

    Parameters
    ----------
    soft : bool, default False
        Add a column ``soft_<label>`` per label: the share of the readers' votes that set it.

    Returns
    -------
    Manifest
        With all columns of the manifest the study began with, and ``n_readings`` and ``settled``:
        ``agreed``, ``majority``, ``third_reader``, ``consensus``, or, with all labels unknown,
        ``excluded``, ``disagreed``, ``incomplete`` or ``stale`` (`final_labels`).
    """
    rows = []
    for one in images:
        labels, basis = final_labels(one, study.taxonomy, n_readers=study.settings.n_readers)
        row = {**_image_row(one), **labels, "n_readings": len(one.readings), "settled": basis}
        if soft:
            readings = [reading.content.labels for reading in one.readings]
            shares = soft_labels(readings, study.taxonomy)
            row |= {f"soft_{label_id}": share for label_id, share in shares.items()}
        rows.append(row)
    return _manifest(rows, study)


def annotator_manifest(
    images: Sequence[ImageReadings], annotations: Sequence[Annotation], study: Study, *, login: str
) -> Manifest:
    """Return the manifest of the images that one annotator labelled, with the first readings.

    Parameters
    ----------
    images : sequence of ImageReadings
        All images of the study.
    annotations : sequence of Annotation
        The latest of each item.
    """
    labels = {
        one.image_id: one.content.labels
        for one in annotations
        if (one.login, one.purpose) == (login, "first") and one.content.skip_reason is None
    }
    rows = [
        {**_image_row(one), **labels[one.image.image_id]}
        for one in images
        if one.image.image_id in labels
    ]
    return _manifest(rows, study)


def annotations_table(
    annotations: Sequence[Annotation], images: Mapping[str, Image], label_ids: Sequence[str]
) -> pd.DataFrame:
    """Return one row per annotation; labels are 1, 0 or empty for unknown.

    `images` are by image id.
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
            **{label_id: one.content.labels.get(label_id) for label_id in label_ids},
            "unsure": int(one.content.unsure),
            "skip_reason": one.content.skip_reason,
            "note": one.content.note,
            "image_sha256": one.image_sha256,
            "model_shown": int(one.model_shown),
            "others_shown": int(one.others_shown),
            "source": one.source,
        }
        for one in annotations
    ]
    table = pd.DataFrame(rows, columns=_annotation_columns(label_ids))
    return table.astype(dict.fromkeys(label_ids, "Int8"))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people as a ``.csv`` file in UTF-8, replacing an existing one."""
    if path.suffix.lower() != ".csv":
        raise OutputError("the name of this file must end in .csv", where=str(path))
    with atomic_write(path) as temporary:
        without_formulas(table).to_csv(temporary, index=False)


def write_events(events: Iterable[Event], path: Path) -> int:
    """Write the ledger with its hashes as ``.csv`` or ``.jsonl``; return the number of entries.

    The payload is canonical JSON as in the database, so that a reader can recompute the hashes; in
    the CSV, a cell that a spreadsheet would run begins with an apostrophe.
    """
    is_csv = path.suffix.lower() == ".csv"
    if not is_csv and path.suffix.lower() != ".jsonl":
        raise OutputError("the name of this file must end in .csv or .jsonl", where=str(path))
    n_events = 0
    with (
        atomic_write(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, EVENT_COLUMNS, lineterminator="\n")
        if is_csv:
            writer.writeheader()
        for one in events:
            row = {name: getattr(one, name) for name in EVENT_COLUMNS}
            row["at"] = one.at.isoformat(timespec="microseconds")
            if is_csv:
                row["payload"] = canonical_json(one.payload)
                writer.writerow({name: not_a_formula(cell) for name, cell in row.items()})
            else:
                stream.write(canonical_json(row) + "\n")
            n_events += 1
    return n_events


def _annotation_columns(label_ids: Sequence[str]) -> list[str]:
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


def _image_row(one: ImageReadings) -> dict[str, Any]:
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
