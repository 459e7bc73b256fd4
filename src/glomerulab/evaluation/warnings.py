"""What a reader must know before believing a score, in plain sentences found from the tables."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.target_leaks import leaking_parts
from glomerulab.evaluation.eval_set import Judged
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables

__all__ = ["FEW_PATIENTS", "SMALL_CLASS_IMAGES", "SMALL_CLASS_PATIENTS", "Caveat", "find_caveats"]

FEW_PATIENTS = 20
"""With fewer, a percentile bootstrap over patients is known to be too narrow."""
SMALL_CLASS_IMAGES = 30
SMALL_CLASS_PATIENTS = 5


@dataclass(frozen=True, slots=True)
class Caveat:
    """One warning."""

    title: str
    text: str
    severe: bool = False
    """Whether the scores may be wrong, not only uncertain."""


def find_caveats(
    run: RunTables, judged: Judged, scores: pd.DataFrame, *, has_external_set: bool = False
) -> list[Caveat]:
    """Find what limits the scores of a run, the severe first.

    Parameters
    ----------
    run : RunTables
    judged : Judged
        The part of its predictions that is judged.
    scores : DataFrame
        Of `judged`, see `glomerulab.evaluation.scores.score_table`.
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
        *_unknown_patients(judged),
        *_augmented(run),
        *_stain_targets(run),
        *_absent_labels(judged),
        *_never_called(judged),
        *_few_patients(judged),
        *_small_classes(judged),
        *_without_an_error(judged, scores),
        *_left_out(judged),
        *([] if has_external_set else _one_source()),
    ]
    return sorted(found, key=lambda caveat: not caveat.severe)


def _synthetic(run: RunTables) -> list[Caveat]:
    if not run.is_synthetic:
        return []
    text = (
        "The images were rendered by a program. The scores show that the pipeline works; they say "
        "nothing about patients."
    )
    return [Caveat("Synthetic data", text, severe=True)]


def _without_seal(run: RunTables) -> list[Caveat]:
    if run.is_sealed:
        return []
    text = (
        "The folder has no seal.json, as `glomerulab train` writes it, so it cannot be told "
        "whether a table was changed since."
    )
    return [Caveat("Not sealed", text)]


def _shared_patients(run: RunTables) -> list[Caveat]:
    known = run.manifest.table.dropna(subset=["patient_id", "split"])
    known = known.loc[known["split"] != EXTERNAL]
    n_parts = known.groupby("patient_id")["split"].nunique()
    shared = n_parts.index[n_parts > 1]
    if len(shared) == 0:
        return []
    text = (
        f"{len(shared)} of {len(n_parts)} patients have images in more than one part, so the model "
        "was judged on patients it had learned from. Such scores are too high; split by patient."
    )
    return [Caveat("Split by image, not by patient", text, severe=True)]


def _unknown_patients(judged: Judged) -> list[Caveat]:
    if judged.n_without_patient == 0:
        return []
    text = (
        f"{judged.n_without_patient} of {judged.n_images} judged images name no patient. Each "
        "counts as a patient of its own, so the intervals are too narrow, and a patient may stand "
        "in two parts unseen. Fill the column patient_id."
    )
    return [Caveat("Patients unknown", text, severe=True)]


def _augmented(run: RunTables) -> list[Caveat]:
    table = run.manifest.table
    held_out = table["split"].isin(["test", "validation"])
    n_copies = int((held_out & table["parent_id"].notna()).sum())
    if n_copies == 0:
        return []
    text = (
        f"{n_copies} images outside the training part were made from other images. Only training "
        "images may be augmented."
    )
    return [Caveat("Augmented images among the held-out", text, severe=True)]


def _stain_targets(run: RunTables) -> list[Caveat]:
    table = run.manifest.table
    own = (table["split"] != EXTERNAL).to_numpy(dtype=bool, na_value=True)
    parts = leaking_parts(run.manifest.with_table(table[own]))
    if not parts:
        return []
    text = (
        f"The stains were normalised to a target that was taken from the {' and the '.join(parts)} "
        "part, so what the model is judged on has shaped what it learned from. Normalise to "
        "training images."
    )
    return [Caveat("Stain target not from training", text, severe=True)]


def _absent_labels(judged: Judged) -> list[Caveat]:
    names = _names(judged, judged.n_positive == 0)
    if not names:
        return []
    text = f"No judged image shows {names}: its scores are not defined, and macro means omit it."
    return [Caveat("Class absent", text, severe=True)]


def _never_called(judged: Judged) -> list[Caveat]:
    names = _names(judged, (judged.calls.sum(axis=0) == 0) & (judged.n_positive > 0))
    if not names:
        return []
    text = f"The model never answered {names}: precision is not defined there, nor its macro mean."
    return [Caveat("Class never called", text, severe=True)]


def _few_patients(judged: Judged) -> list[Caveat]:
    if judged.n_patients == 1:
        text = "All judged images are of one patient: intervals are not defined."
        return [Caveat("One patient", text, severe=True)]
    if judged.n_patients >= FEW_PATIENTS:
        return []
    text = (
        f"The scores rest on {judged.n_patients} patients. With fewer than {FEW_PATIENTS} the "
        "intervals are themselves uncertain, and likely too narrow."
    )
    return [Caveat("Few patients", text)]


def _small_classes(judged: Judged) -> list[Caveat]:
    present = judged.n_positive > 0
    small = present & (
        (judged.n_positive < SMALL_CLASS_IMAGES)
        | (judged.n_patients_positive < SMALL_CLASS_PATIENTS)
    )
    if not small.any():
        return []
    counts = ", ".join(
        f"{judged.taxonomy.labels[k].name} ({judged.n_positive[k]} images of "
        f"{judged.n_patients_positive[k]} patients)"
        for k in np.flatnonzero(small)
    )
    text = (
        f"Fewer than {SMALL_CLASS_IMAGES} images or {SMALL_CLASS_PATIENTS} patients show: {counts}."
    )
    return [Caveat("Small classes", text)]


def _without_an_error(judged: Judged, scores: pd.DataFrame) -> list[Caveat]:
    perfect = scores.loc[(scores["value"] == 1.0) & (scores["low"] == 1.0), "label"]
    ids = perfect.dropna().unique().tolist()
    if perfect.empty:
        return []
    found = [label.name for label in judged.taxonomy.labels if label.id in ids]
    whom = f" of {', '.join(found)}" if found else ""
    text = (
        f"Some scores{whom} are 1 in every resample, so that their interval has no width. No error "
        f"of that kind was seen in {judged.n_patients} patients; by the rule of three, errors in "
        f"up to {min(1.0, 3.0 / judged.n_patients):.0%} of patients would still be compatible with "
        "that."
    )
    return [Caveat("Scores without a single error", text)]


def _left_out(judged: Judged) -> list[Caveat]:
    if judged.n_left_out == 0:
        return []
    reason = (
        "carry no label, several labels or an unknown one, and a model that answers with exactly "
        "one class can be neither right nor wrong on them"
        if judged.head == "softmax"
        else "have no known label"
    )
    return [Caveat("Images left out", f"{judged.n_left_out} held-out images {reason}.")]


def _one_source() -> list[Caveat]:
    text = (
        "Training and test images come from one collection. How the model does on another "
        "hospital's slides is not known; `glomerulab evaluate RUN --on MANIFEST` tells."
    )
    return [Caveat("No external set", text)]


def _names(judged: Judged, which: npt.NDArray[np.bool_]) -> str:
    return ", ".join(judged.taxonomy.labels[k].name for k in np.flatnonzero(which))
