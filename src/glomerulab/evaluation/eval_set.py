"""The evaluated images: labels, probabilities and patients as aligned arrays."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.predictions import DECISION_THRESHOLD, Head, label_array, probability_array
from glomerulab.runtime.messages import did_you_mean
from glomerulab.taxonomy import Taxonomy

__all__ = ["EvalSet", "eval_set_of_split", "rows_of_split"]


@dataclass(frozen=True)
class EvalSet:
    """One split of a predictions table as arrays.

    Under a softmax head it holds only images with exactly one positive label and all others known
    to be absent; `n_left_out` counts the rest.
    """

    rows: pd.DataFrame
    """Rows of the predictions, in the order of the arrays."""
    labels: npt.NDArray[np.float64]
    """Shape (n, K): 1, 0, or NaN where unknown (sigmoid only)."""
    probabilities: npt.NDArray[np.float64]
    """Shape (n, K), from 0 to 1."""
    patients: npt.NDArray[np.intp]
    """Shape (n,): patient numbers from 0; an image without a patient counts as its own."""
    n_patients: int
    n_without_patient: int
    n_left_out: int
    taxonomy: Taxonomy
    head: Head
    has_probabilities: bool = True
    """Whether the probabilities are more than the predicted labels as 1 and 0."""

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def n_labels(self) -> int:
        """Number of labels of the taxonomy, K."""
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
    def is_correct(self) -> npt.NDArray[np.bool_]:
        """Shape (n,): whether every known label of an image is called correctly."""
        agrees = (self.calls == (self.labels == 1)) | np.isnan(self.labels)
        return np.asarray(agrees.all(axis=1), dtype=np.bool_)

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
    """Return one split of a predictions table as an `EvalSet`.

    Parameters
    ----------
    table : DataFrame
        Valid, see `glomerulab.predictions`.
    head : {"softmax", "sigmoid"}, default "softmax"
    split : str or None, default "test"
        None takes every row.

    Raises
    ------
    PredictionsError
        If the split does not exist, or none of its images has usable labels.
    """
    rows = table if split is None else rows_of_split(table, split)
    labels = label_array(rows, taxonomy)
    if head == "softmax":
        usable = np.nansum(labels, axis=1) == 1
        usable &= ~np.isnan(labels).any(axis=1)
    else:
        usable = ~np.isnan(labels).all(axis=1)
    if not usable.any():
        images = " ".join(filter(None, (str(len(rows)), split, "images")))
        raise PredictionsError(
            f"none of the {images} has exactly one label with the others known to be absent; "
            "complete their labels, or evaluate independent labels (head = 'sigmoid')"
            if head == "softmax"
            else f"none of the {images} has any known label; complete their labels"
        )
    rows = rows.loc[usable].reset_index(drop=True)
    patients, n_patients, n_without = _patient_numbers(rows)
    return EvalSet(
        rows=rows,
        labels=labels[usable],
        probabilities=probability_array(rows, taxonomy),
        patients=patients,
        n_patients=n_patients,
        n_without_patient=n_without,
        n_left_out=int((~usable).sum()),
        taxonomy=taxonomy,
        head=head,
    )


def rows_of_split(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split; raise PredictionsError if there is none."""
    if "split" not in table:
        raise PredictionsError(
            "the predictions have no column split, so the held-out images are not known"
        )
    rows = table.loc[(table["split"] == split).fillna(value=False).astype(bool)]
    if rows.empty:
        found = sorted(table["split"].dropna().unique())
        raise PredictionsError(
            f"no image has split {split!r}{did_you_mean(split, found)} "
            f"(splits in the table: {', '.join(found) or 'none'}); give one of them with --split"
        )
    return rows


def _patient_numbers(rows: pd.DataFrame) -> tuple[npt.NDArray[np.intp], int, int]:
    """Return patient numbers from 0; images without a patient come last."""
    if "patient_id" not in rows:
        return np.arange(len(rows)), len(rows), len(rows)
    codes, names = pd.factorize(rows["patient_id"])
    numbers = np.asarray(codes, dtype=np.intp)
    without = numbers < 0
    n_without = int(without.sum())
    numbers[without] = len(names) + np.arange(n_without)
    return numbers, len(names) + n_without, n_without
