"""What a model said of the images, kept for studies that show it to their annotators."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import RowMapping, delete, insert, select

from glomerulab.apps.annotation.store.accounts import require_owner
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.ledger import append, canonical_json, newest_event
from glomerulab.apps.annotation.store.schema import image, model_call
from glomerulab.apps.annotation.store.study import study_of
from glomerulab.errors import AnnotationError
from glomerulab.predictions import probability_array

__all__ = ["model_calls_digest", "set_model_calls"]

KIND = "model"
DIGESTED = ("image_id", "label_id", "probability")


def set_model_calls(store: Store, predictions: pd.DataFrame, *, source: str, by: str) -> int:
    """Keep a model's probabilities, in place of those of another.

    Parameters
    ----------
    store : Store
    predictions : DataFrame
        As `read_predictions` gives it, with the labels of the study.
    source : str
        Which model, for the record.
    by : str
        Login of an owner.

    Returns
    -------
    int
        How many images of the study it speaks of; other rows are left out.

    Raises
    ------
    AnnotationError
        If it speaks of none.
    """
    with store.writing() as connection:
        actor = require_owner(connection, by)
        taxonomy = study_of(connection).taxonomy
        known = set(connection.scalars(select(image.c.image_id)))
        probabilities = probability_array(predictions, taxonomy)
        rows = [
            {"image_id": str(image_id), "label_id": label_id, "probability": float(probability)}
            for image_id, of_image in zip(predictions["image_id"], probabilities, strict=True)
            if image_id in known
            for label_id, probability in zip(taxonomy.label_ids, of_image, strict=True)
        ]
        if not rows:
            raise AnnotationError("these predictions speak of no image of the study", where=source)
        before = newest_event(connection, KIND, KIND)
        append(
            connection,
            kind=KIND,
            subject=KIND,
            version=1 if before is None else before.version + 1,
            actor=actor.login,
            payload={"source": source, "n_rows": len(rows), "sha256": model_calls_digest(rows)},
        )
        connection.execute(delete(model_call))
        connection.execute(insert(model_call), rows)
    return len(rows) // len(taxonomy.label_ids)


def model_calls_digest(rows: Iterable[RowMapping] | Sequence[Mapping[str, Any]]) -> str:
    """Return the SHA-256 of rows of the table, whatever their order."""
    lines = sorted(canonical_json([row[name] for name in DIGESTED]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8")).hexdigest()
