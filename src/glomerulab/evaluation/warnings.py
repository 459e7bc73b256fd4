"""What a reader must know before believing a score, in plain sentences found from the tables."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.leakage import patients_in_several_parts, target_leak_parts
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables

__all__ = [
    "FEW_PATIENTS",
    "SMALL_CLASS_IMAGES",
    "SMALL_CLASS_PATIENTS",
    "EvaluationWarning",
    "find_warnings",
]

FEW_PATIENTS = 20
"""With fewer, a percentile bootstrap over patients is known to be too narrow."""
SMALL_CLASS_IMAGES = 30
SMALL_CLASS_PATIENTS = 5


@dataclass(frozen=True, slots=True)
class EvaluationWarning:
    """One warning."""

    title: str
    text: str
    severe: bool = False
    """Whether the scores may be wrong, not only uncertain."""


def find_warnings(
    run: RunTables, eval_set: EvalSet, scores: pd.DataFrame, *, has_external_set: bool = False
) -> list[EvaluationWarning]:
    """Find what limits the scores of a run, the severe first.

    Parameters
    ----------
    run : RunTables
    judged : Judged
        The part of its predictions that is judged.
    scores : DataFrame
        Of `eval_set`, see `glomerulab.evaluation.scores.score_table`.
    has_external_set : bool, default False
        Whether an external set was judged too.

    Returns
    -------
    list of Caveat
    """
    found = [
        *_synthetic(run),
        *_without_seal(run),
        *_shared_patients(run),
        *_unknown_patients(eval_set),
        *_augmented(run),
        *_stain_targets(run),
        *_absent_labels(eval_set),
        *_never_called(eval_set),
        *_few_patients(eval_set),
        *_small_classes(eval_set),
        *_without_an_error(eval_set, scores),
        *_left_out(eval_set),
        *([] if has_external_set else _one_source()),
    ]
    return sorted(found, key=lambda caveat: not caveat.severe)


def _synthetic(run: RunTables) -> list[EvaluationWarning]:
    if not run.is_synthetic:
        return []
    text = (
        "The images were rendered by a program. The scores show that the pipeline works; they say "
        "nothing about patients."
    )
    return [EvaluationWarning("Synthetic data", text, severe=True)]


def _without_seal(run: RunTables) -> list[EvaluationWarning]:
    if run.is_sealed:
        return []
    text = (
        "The folder has no seal.json, as `glomerulab train` writes it, so it cannot be told "
        "whether a table was changed since."
    )
    return [EvaluationWarning("Not sealed", text)]


def _shared_patients(run: RunTables) -> list[EvaluationWarning]:
    known = run.manifest.table.dropna(subset=["patient_id", "split"])
    known = known.loc[known["split"] != EXTERNAL]
    shared = patients_in_several_parts(known)
    if not shared:
        return []
    text = (
        f"{len(shared)} of {known['patient_id'].nunique()} patients have images in more than one "
        "part, so the model was judged on patients it had learned from. Such scores are too high; "
        "split by patient."
    )
    return [EvaluationWarning("Split by image, not by patient", text, severe=True)]


def _unknown_patients(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_without_patient == 0:
        return []
    text = (
        f"{eval_set.n_without_patient} of {eval_set.n_images} judged images name no patient. Each "
        "counts as a patient of its own, so the intervals are too narrow, and a patient may stand "
        "in two parts unseen. Fill the column patient_id."
    )
    return [EvaluationWarning("Patients unknown", text, severe=True)]


def _augmented(run: RunTables) -> list[EvaluationWarning]:
    table = run.manifest.table
    held_out = table["split"].isin(["test", "validation"])
    n_copies = int((held_out & table["parent_id"].notna()).sum())
    if n_copies == 0:
        return []
    text = (
        f"{n_copies} images outside the training part were made from other images. Only training "
        "images may be augmented."
    )
    return [EvaluationWarning("Augmented images among the held-out", text, severe=True)]


def _stain_targets(run: RunTables) -> list[EvaluationWarning]:
    table = run.manifest.table
    own = (table["split"] != EXTERNAL).to_numpy(dtype=bool, na_value=True)
    parts = target_leak_parts(run.manifest.with_table(table[own]))
    if not parts:
        return []
    text = (
        f"The stains were normalised to a target that was taken from the {' and the '.join(parts)} "
        "part, so what the model is judged on has shaped what it learned from. Normalise to "
        "training images."
    )
    return [EvaluationWarning("Stain target not from training", text, severe=True)]


def _absent_labels(eval_set: EvalSet) -> list[EvaluationWarning]:
    names = _names(eval_set, eval_set.n_positive == 0)
    if not names:
        return []
    text = f"No judged image shows {names}: its scores are not defined, and macro means omit it."
    return [EvaluationWarning("Class absent", text, severe=True)]


def _never_called(eval_set: EvalSet) -> list[EvaluationWarning]:
    names = _names(eval_set, (eval_set.calls.sum(axis=0) == 0) & (eval_set.n_positive > 0))
    if not names:
        return []
    text = f"The model never answered {names}: precision is not defined there, nor its macro mean."
    return [EvaluationWarning("Class never called", text, severe=True)]


def _few_patients(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_patients == 1:
        text = "All judged images are of one patient: intervals are not defined."
        return [EvaluationWarning("One patient", text, severe=True)]
    if eval_set.n_patients >= FEW_PATIENTS:
        return []
    text = (
        f"The scores rest on {eval_set.n_patients} patients. With fewer than {FEW_PATIENTS} the "
        "intervals are themselves uncertain, and likely too narrow."
    )
    return [EvaluationWarning("Few patients", text)]


def _small_classes(eval_set: EvalSet) -> list[EvaluationWarning]:
    present = eval_set.n_positive > 0
    small = present & (
        (eval_set.n_positive < SMALL_CLASS_IMAGES)
        | (eval_set.n_patients_positive < SMALL_CLASS_PATIENTS)
    )
    if not small.any():
        return []
    counts = ", ".join(
        f"{eval_set.taxonomy.labels[k].name} ({eval_set.n_positive[k]} images of "
        f"{eval_set.n_patients_positive[k]} patients)"
        for k in np.flatnonzero(small)
    )
    text = (
        f"Fewer than {SMALL_CLASS_IMAGES} images or {SMALL_CLASS_PATIENTS} patients show: {counts}."
    )
    return [EvaluationWarning("Small classes", text)]


def _without_an_error(eval_set: EvalSet, scores: pd.DataFrame) -> list[EvaluationWarning]:
    perfect = scores.loc[(scores["value"] == 1.0) & (scores["low"] == 1.0), "label"]
    ids = perfect.dropna().unique().tolist()
    if perfect.empty:
        return []
    found = [label.name for label in eval_set.taxonomy.labels if label.id in ids]
    whom = f" of {', '.join(found)}" if found else ""
    text = (
        f"Some scores{whom} are 1 in every resample, so that their interval has no width. No error "
        f"of that kind was seen in {eval_set.n_patients} patients; by the rule of three, errors in "
        f"up to {min(1.0, 3.0 / eval_set.n_patients):.0%} of patients would still be compatible "
        "with that."
    )
    return [EvaluationWarning("Scores without a single error", text)]


def _left_out(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_left_out == 0:
        return []
    reason = (
        "carry no label, several labels or an unknown one, and a model that answers with exactly "
        "one class can be neither right nor wrong on them"
        if eval_set.head == "softmax"
        else "have no known label"
    )
    return [
        EvaluationWarning("Images left out", f"{eval_set.n_left_out} held-out images {reason}.")
    ]


def _one_source() -> list[EvaluationWarning]:
    text = (
        "Training and test images come from one collection. How the model does on another "
        "hospital's slides is not known; `glomerulab evaluate RUN --on MANIFEST` tells."
    )
    return [EvaluationWarning("No external set", text)]


def _names(eval_set: EvalSet, which: npt.NDArray[np.bool_]) -> str:
    return ", ".join(eval_set.taxonomy.labels[k].name for k in np.flatnonzero(which))
