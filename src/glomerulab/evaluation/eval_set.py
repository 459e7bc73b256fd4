"""The images that are judged: labels, probabilities and patients as aligned arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.predictions import Head, label_array, probability_array
from glomerulab.taxonomy import Taxonomy

__all__ = ["DECISION_THRESHOLD", "EvalSet", "eval_set_of_split"]

DECISION_THRESHOLD = 0.5
"""Under a sigmoid head, a label is called present from this probability on."""


@dataclass(frozen=True)
class EvalSet:
    """One part of a predictions table, ready for arithmetic.

    Under a softmax head only images with exactly one label set and the others known to be absent
    are held; the rest cannot be right or wrong and are counted in `n_left_out`.
    """

    rows: pd.DataFrame
    """The rows themselves, in the order of the arrays."""
    labels: npt.NDArray[np.float64]
    """Shape (n, K): 1, 0, or NaN where unknown (sigmoid only)."""
    probabilities: npt.NDArray[np.float64]
    """Shape (n, K), from 0 to 1."""
    patients: npt.NDArray[np.intp]
    """Shape (n,): each image's patient as a number from 0; an image without one is its own."""
    n_patients: int
    n_without_patient: int
    n_left_out: int
    taxonomy: Taxonomy
    head: Head

    @property
    def n_images(self) -> int:
        """How many images are judged."""
        return len(self.labels)

    @property
    def n_labels(self) -> int:
        """How many labels the taxonomy has, K."""
        return len(self.taxonomy.label_ids)

    @cached_property
    def truth(self) -> npt.NDArray[np.intp]:
        """Shape (n,): the true class of each image (softmax only)."""
        return np.asarray(np.argmax(self.labels, axis=1), dtype=np.intp)

    @cached_property
    def decision(self) -> npt.NDArray[np.intp]:
        """Shape (n,): the most probable class of each image."""
        return np.asarray(np.argmax(self.probabilities, axis=1), dtype=np.intp)

    @cached_property
    def calls(self) -> npt.NDArray[np.bool_]:
        """Shape (n, K): which labels are called present."""
        if self.head == "sigmoid":
            called = self.probabilities >= DECISION_THRESHOLD
        else:
            called = self.decision[:, None] == np.arange(self.n_labels)
        return np.asarray(called, dtype=np.bool_)

    @cached_property
    def n_positive(self) -> npt.NDArray[np.intp]:
        """Shape (K,): images that carry each label."""
        return np.asarray(np.sum(self.labels == 1, axis=0), dtype=np.intp)

    @cached_property
    def n_negative(self) -> npt.NDArray[np.intp]:
        """Shape (K,): images known not to carry each label."""
        return np.asarray(np.sum(self.labels == 0, axis=0), dtype=np.intp)

    @cached_property
    def n_patients_positive(self) -> npt.NDArray[np.intp]:
        """Shape (K,): patients with at least one image that carries each label."""
        return np.array([len(np.unique(self.patients[column == 1])) for column in self.labels.T])


def eval_set_of_split(
    table: pd.DataFrame, taxonomy: Taxonomy, *, head: Head = "softmax", split: str | None = "test"
) -> EvalSet:
    """Take one part of a predictions table.

    Parameters
    ----------
    table : DataFrame
        Valid, see `glomerulab.predictions`.
    taxonomy : Taxonomy
    head : {"softmax", "sigmoid"}, default "softmax"
    split : str or None, default "test"
        Which part; None takes every row.

    Returns
    -------
    Judged

    Raises
    ------
    PredictionsError
        If no row of that part can be judged.
    """
    rows = table if split is None else _rows_of(table, split)
    labels = label_array(rows, taxonomy)
    if head == "softmax":
        can_be_judged = np.nansum(labels, axis=1) == 1
        can_be_judged &= ~np.isnan(labels).any(axis=1)
    else:
        can_be_judged = ~np.isnan(labels).all(axis=1)
    if not can_be_judged.any():
        reason = "exactly one label" if head == "softmax" else "any known label"
        raise PredictionsError(f"none of the {len(rows)} {split or ''} images has {reason}")
    rows = rows.loc[can_be_judged].reset_index(drop=True)
    patients, n_patients, n_without = _patient_numbers(rows)
    return EvalSet(
        rows=rows,
        labels=labels[can_be_judged],
        probabilities=probability_array(rows, taxonomy),
        patients=patients,
        n_patients=n_patients,
        n_without_patient=n_without,
        n_left_out=int((~can_be_judged).sum()),
        taxonomy=taxonomy,
        head=head,
    )


def _rows_of(table: pd.DataFrame, split: str) -> pd.DataFrame:
    if "split" not in table:
        raise PredictionsError("no column split: it cannot be told which images are held out")
    rows = table.loc[(table["split"] == split).fillna(value=False).astype(bool)]
    if rows.empty:
        found = ", ".join(sorted(table["split"].dropna().unique())) or "none"
        raise PredictionsError(f"no image has split {split!r}; the splits there are: {found}")
    return rows


def _patient_numbers(rows: pd.DataFrame) -> tuple[npt.NDArray[np.intp], int, int]:
    """Give each patient a number from 0, then each image without one."""
    if "patient_id" not in rows:
        return np.arange(len(rows)), len(rows), len(rows)
    codes, names = pd.factorize(rows["patient_id"])
    numbers = np.asarray(codes, dtype=np.intp)
    without = numbers < 0
    n_without = int(without.sum())
    numbers[without] = len(names) + np.arange(n_without)
    return numbers, len(names) + n_without, n_without
