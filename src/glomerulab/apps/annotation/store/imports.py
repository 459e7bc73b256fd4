"""Import labels given before the study, and a model's probabilities."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from glomerulab.apps.annotation.label_validation import validate_content
from glomerulab.apps.annotation.records import AnnotationContent
from glomerulab.apps.annotation.store.accounts import get_account, require_owner
from glomerulab.apps.annotation.store.annotations import save_first_readings
from glomerulab.apps.annotation.store.assignments import Assignment, add_to_queues
from glomerulab.apps.annotation.store.database import PART_ROWS, Store
from glomerulab.apps.annotation.store.ledger import (
    MODEL,
    MODEL_CALL_COLUMNS,
    append_event,
    model_batch,
    unordered_digest,
)
from glomerulab.apps.annotation.store.schema import assignment, image, model_call
from glomerulab.apps.annotation.store.study import get_study
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import AnnotationError
from glomerulab.predictions import probability_array
from glomerulab.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """The counts of an import of labels."""

    n_imported: int
    n_already_read: int
    """Images that the annotator has read in the study; their annotations stay."""
    n_without_labels: int
    """Images with no label in the manifest."""
    not_in_study: tuple[str, ...]
    """Ids of the images that the study does not have."""


def import_labels(store: Store, manifest: Manifest, *, login: str, by: str) -> ImportSummary:
    """Import the labels of a manifest as first readings of one annotator.

    All are checked before the first is saved. They are saved in parts; if the program is killed in
    between, the same call imports the rest.

    Parameters
    ----------
    manifest : Manifest
        An empty cell stays unknown.
    login : str
        The annotator.
    by : str
        Login of an owner.

    Raises
    ------
    AnnotationError
        If labels of an image exclude each other.
    """
    counts: Counter[str] = Counter()
    not_in_study: list[str] = []
    with store.reading() as connection:
        actor, reader = require_owner(connection, by), get_account(connection, login)
        taxonomy = get_study(connection).taxonomy
        known = set(connection.scalars(select(image.c.image_id)))
        readings: dict[str, AnnotationContent] = {}
        for image_id, labels in _manifest_labels(manifest).items():
            if image_id not in known:
                not_in_study.append(image_id)
            elif all(value is None for value in labels.values()):
                counts["without labels"] += 1
            else:
                readings[image_id] = _validated(labels, taxonomy, image_id)
        query = select(assignment.c.image_id).where(
            assignment.c.account_id == reader.account_id, assignment.c.purpose == "first"
        )
        assigned = set(connection.scalars(query))
    queue = [Assignment(image_id, "first") for image_id in readings if image_id not in assigned]
    add_to_queues(store, {reader.login: queue}, actor=actor.login)

    def write(connection: Connection, part: list[str]) -> None:
        contents = {image_id: readings[image_id] for image_id in part}
        counts["imported"] += save_first_readings(connection, reader, contents)

    store.write_in_parts(readings, write)
    return ImportSummary(
        n_imported=counts["imported"],
        n_already_read=len(readings) - counts["imported"],
        n_without_labels=counts["without labels"],
        not_in_study=tuple(not_in_study),
    )


def import_model_calls(store: Store, predictions: pd.DataFrame, *, source: str, by: str) -> int:
    """Store a model's probabilities in place of those of another; return the number of images.

    They are written in parts, and readers see them when all are there. If the program is killed in
    between, the same call writes the rest.

    Parameters
    ----------
    predictions : DataFrame
        As `read_predictions` returns it, with the labels of the study. Rows of images that the
        study does not have are skipped.
    source : str
        Name of the model for the ledger.
    by : str
        Login of an owner.

    Raises
    ------
    AnnotationError
        If no image of the study is among the predictions, or someone else imports others at the
        same time.
    """
    with store.reading() as connection:
        actor = require_owner(connection, by)
        taxonomy = get_study(connection).taxonomy
        known = set(connection.scalars(select(image.c.image_id)))
    probabilities = probability_array(predictions, taxonomy)
    calls = {
        str(image_id): [
            {"image_id": str(image_id), "label_id": label_id, "probability": float(probability)}
            for label_id, probability in zip(taxonomy.label_ids, of_image, strict=True)
        ]
        for image_id, of_image in zip(predictions["image_id"], probabilities, strict=True)
        if image_id in known
    }
    rows = [row for of_image in calls.values() for row in of_image]
    if not rows:
        raise AnnotationError(
            "these predictions contain no image of the study; give those of its images",
            where=source,
        )
    batch = unordered_digest(rows, MODEL_CALL_COLUMNS)
    part_size = max(PART_ROWS // len(taxonomy.label_ids), 1)
    _write_batch(store, calls, batch, part_size)
    payload = {"source": source, "n_rows": len(rows), "sha256": batch}
    with store.writing() as connection:
        query = select(func.count()).select_from(model_call).where(model_call.c.batch == batch)
        if connection.scalar(query) != len(rows):
            raise AnnotationError(
                "someone else imports other predictions at the same time; import these again",
                where=source,
            )
        append_event(connection, kind=MODEL, subject=MODEL, actor=actor.login, payload=payload)
    _remove_other_batches(store, part_size)
    return len(calls)


def _write_batch(
    store: Store, calls: Mapping[str, Sequence[Mapping[str, Any]]], batch: str, part_size: int
) -> None:
    """Write the rows of images beside those in use, without the ones that are there."""
    columns = (model_call.c[name] for name in MODEL_CALL_COLUMNS)
    with store.reading() as connection:
        query = select(*columns).where(model_call.c.batch == batch)
        written = set(map(tuple, connection.execute(query)))

    def write(connection: Connection, part: list[str]) -> None:
        mine = model_call.c.batch == batch
        connection.execute(delete(model_call).where(mine, model_call.c.image_id.in_(part)))
        rows = [{**row, "batch": batch} for image_id in part for row in calls[image_id]]
        connection.execute(insert(model_call), rows)

    left = [
        image_id
        for image_id, rows in calls.items()
        if not {tuple(row.values()) for row in rows} <= written
    ]
    store.write_in_parts(left, write, size=part_size)


def _remove_other_batches(store: Store, part_size: int) -> None:
    """Remove the rows that the latest import replaced, and those of imports that never ended."""
    with store.reading() as connection:
        other = model_call.c.batch != model_batch(connection)
        query = select(model_call.c.image_id, model_call.c.batch).where(other).distinct()
        places = list(connection.execute(query).mappings())

    def remove(connection: Connection, part: Sequence[RowMapping]) -> None:
        of_batch: dict[str, list[str]] = {}
        for one in part:
            of_batch.setdefault(one["batch"], []).append(one["image_id"])
        in_use = model_batch(connection)
        for batch, image_ids in of_batch.items():
            if batch != in_use:  # another import may have brought it back by now
                mine = model_call.c.batch == batch
                connection.execute(
                    delete(model_call).where(mine, model_call.c.image_id.in_(image_ids))
                )

    store.write_in_parts(places, remove, size=part_size)


def _manifest_labels(manifest: Manifest) -> dict[str, dict[str, int | None]]:
    known = manifest.table[list(manifest.taxonomy.label_ids)].astype(object)
    rows = known.where(known.notna(), None).to_dict("records")
    return {
        str(image_id): {str(k): None if v is None else int(v) for k, v in row.items()}
        for image_id, row in zip(manifest.table["image_id"], rows, strict=True)
    }


def _validated(
    labels: dict[str, int | None], taxonomy: Taxonomy, image_id: str
) -> AnnotationContent:
    try:
        return validate_content(AnnotationContent(labels), taxonomy)
    except AnnotationError as error:
        raise AnnotationError(error.message, where=image_id) from error
