"""The predictions table: a model's probabilities and the known labels of each image.

Evaluation and reports use nothing else of a model. One row per image; for each label of the
taxonomy, `label_<id>` holds 1, 0 or empty for unknown, and `probability_<id>` a number from 0 to 1.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.runtime.files import StrPath, atomic_write
from glomerulab.runtime.tables import TableSchema, read_table
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "DECISION_THRESHOLD",
    "Head",
    "label_array",
    "predictions_schema",
    "predictions_table",
    "probability_array",
    "read_predictions",
    "validate_predictions",
    "write_predictions",
]

Head = Literal["softmax", "sigmoid"]
"""``softmax``: exactly one class per image; ``sigmoid``: independent labels."""

DECISION_THRESHOLD = 0.5
"""Probability from which a sigmoid head calls a label."""
KEY_COLUMNS = ("image_id", "patient_id", "slide_id", "stain", "split")
MEASURES = ("mpp", "distance", "sharpness", "detector_score")
"""Further numbers of the table that `predict` writes."""
SUM_TOLERANCE = 1e-3


def predictions_schema(taxonomy: Taxonomy) -> TableSchema:
    """Return the schema of the predictions tables with these labels."""
    labels = tuple(f"label_{label_id}" for label_id in taxonomy.label_ids)
    probabilities = tuple(f"probability_{label_id}" for label_id in taxonomy.label_ids)
    return TableSchema(
        "predictions table",
        (*KEY_COLUMNS, *labels, *probabilities),
        required=("image_id", *labels, *probabilities),
        numbers=frozenset({*labels, *probabilities, *MEASURES}),
        error=PredictionsError,
        source="give the one of a run folder",
    )


def predictions_table(
    rows: pd.DataFrame, probabilities: npt.NDArray[np.floating], taxonomy: Taxonomy
) -> pd.DataFrame:
    """Join manifest rows and a model's probabilities into a predictions table.

    Parameters
    ----------
    rows : DataFrame
        Manifest rows, with the label columns of the taxonomy.
    probabilities : ndarray of float, shape (n_rows, n_labels)
        In the order of `rows` and of the taxonomy, from 0 to 1.
    """
    expected = (len(rows), len(taxonomy.label_ids))
    if probabilities.shape != expected:
        raise ValueError(f"probabilities must have shape {expected}, got {probabilities.shape}")
    table = rows.loc[:, [name for name in KEY_COLUMNS if name in rows]].reset_index(drop=True)
    for column, label_id in enumerate(taxonomy.label_ids):
        table[f"label_{label_id}"] = rows[label_id].astype("Int8").array
        table[f"probability_{label_id}"] = probabilities[:, column]
    return table


def probability_array(table: pd.DataFrame, taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """Return the probabilities, float64, shape (n_rows, n_labels), in taxonomy order."""
    columns = [f"probability_{label_id}" for label_id in taxonomy.label_ids]
    return table[columns].to_numpy(dtype=np.float64)


def label_array(table: pd.DataFrame, taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """Return the labels, float64, shape (n_rows, n_labels): 1, 0, or NaN where unknown."""
    columns = [f"label_{label_id}" for label_id in taxonomy.label_ids]
    return table[columns].to_numpy(dtype=np.float64, na_value=np.nan)


def read_predictions(path: StrPath, taxonomy: Taxonomy, *, head: Head = "softmax") -> pd.DataFrame:
    """Read and validate a predictions CSV.

    Parameters
    ----------
    taxonomy : Taxonomy
        Defines the columns.
    head : {"softmax", "sigmoid"}, default "softmax"
        Whether the probabilities of a row must sum to 1.

    Returns
    -------
    DataFrame
        Ids as strings, labels as nullable integers, probabilities as float64.

    Raises
    ------
    PredictionsError
        If the file is missing or breaks a rule; the message names the row.
    """
    table = read_table(Path(path), predictions_schema(taxonomy)).frame()
    _make_numeric(table, str(path))
    validate_predictions(table, taxonomy, head=head, where=str(path))
    for label_id in taxonomy.label_ids:
        table[f"label_{label_id}"] = table[f"label_{label_id}"].astype("Int8")
    return table


def validate_predictions(
    table: pd.DataFrame, taxonomy: Taxonomy, *, head: Head = "softmax", where: str | None = None
) -> None:
    """Check a predictions table against its rules.

    Parameters
    ----------
    head : {"softmax", "sigmoid"}, default "softmax"
    where : str, optional
        The file, for the error.

    Raises
    ------
    PredictionsError
        If a column is missing or unknown, an image_id is empty or given twice, a probability is NaN
        or outside 0 to 1, probabilities do not sum to 1 under softmax, or a label is not 1, 0 or
        empty.
    """
    expected = {f"{kind}_{i}" for kind in ("label", "probability") for i in taxonomy.label_ids}
    found = {str(name) for name in table if str(name).startswith(("label_", "probability_"))}
    missing = sorted(({"image_id"} | expected) - set(table.columns))
    if missing:
        raise PredictionsError(
            f"the predictions table lacks the columns {', '.join(missing)}", where=where
        )
    surplus = sorted(found - expected)
    if surplus:
        known = ", ".join(taxonomy.label_ids)
        raise PredictionsError(
            f"the predictions table has columns outside the taxonomy ({known}): "
            f"{', '.join(surplus)}",
            where=where,
        )
    nameless = table["image_id"].isna()
    if nameless.any():
        line = int(np.flatnonzero(nameless)[0]) + 2
        raise PredictionsError(f"line {line}: image_id is empty", where=where)
    twice = table["image_id"].duplicated()
    if twice.any():
        raise PredictionsError(f"{_name(table, twice)}: the image has two rows", where=where)
    _check_probabilities(table, taxonomy, head, where)
    labels = label_array(table, taxonomy)
    wrong = ~(np.isnan(labels) | np.isin(labels, (0.0, 1.0))).all(axis=1)
    if wrong.any():
        raise PredictionsError(f"{_name(table, wrong)}: a label must be 1, 0 or empty", where=where)


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write a predictions table atomically as CSV."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)


def _make_numeric(table: pd.DataFrame, where: str) -> None:
    """Convert the label and probability columns to numbers, in place."""
    for name in [str(name) for name in table if str(name).startswith(("label_", "probability_"))]:
        numbers = pd.to_numeric(table[name], errors="coerce").astype("Float64")
        wrong = numbers.isna() & table[name].notna()
        if wrong.any():
            place = _name(table, wrong) if "image_id" in table else name
            raise PredictionsError(f"{place}: {name} is not a number", where=where)
        table[name] = numbers.to_numpy(dtype=np.float64, na_value=np.nan)


def _check_probabilities(
    table: pd.DataFrame, taxonomy: Taxonomy, head: Head, where: str | None
) -> None:
    probabilities = probability_array(table, taxonomy)
    outside = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)  # NaN compares False
    if outside.any():
        raise PredictionsError(
            f"{_name(table, outside)}: a probability is missing or not from 0 to 1", where=where
        )
    unsummed = np.abs(probabilities.sum(axis=1) - 1.0) > SUM_TOLERANCE
    if head == "softmax" and unsummed.any():
        raise PredictionsError(
            f"{_name(table, unsummed)}: the probabilities do not sum to 1", where=where
        )


def _name(table: pd.DataFrame, wrong: npt.ArrayLike) -> str:
    """Return line of the file and image id of the first wrong row."""
    place = int(np.flatnonzero(np.asarray(wrong))[0])
    return f"line {place + 2}, image {table['image_id'].iloc[place]!r}"
