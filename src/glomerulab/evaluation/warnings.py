"""Warnings about the scores of a run, derived from its tables."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.leakage import patients_in_several_parts, target_leak_parts
from glomerulab.cohort.manifest import Manifest
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import MARK, RULE_OF_THREE, unseen_share
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables
from glomerulab.runtime.messages import count_noun
from glomerulab.runtime.names import look_alike_key

__all__ = ["EvaluationWarning", "find_external_warnings", "find_warnings"]

FEW_PATIENTS = 20
"""With fewer, percentile intervals over patients are too narrow."""
SMALL_CLASS_IMAGES = 30
SMALL_CLASS_PATIENTS = 5


@dataclass(frozen=True, slots=True)
class EvaluationWarning:
    """A limitation of the scores, for the reader of a report."""

    title: str
    text: str
    severe: bool = False
    """Whether the scores may be invalid, not only uncertain."""


def find_warnings(
    run: RunTables, eval_set: EvalSet, scores: pd.DataFrame, *, has_external_set: bool = False
) -> list[EvaluationWarning]:
    """Return the limitations of a run's scores, the severe ones first.

    Parameters
    ----------
    eval_set : EvalSet
        The evaluated split.
    scores : DataFrame
        Of `eval_set`, see `glomerulab.evaluation.scores.score_table`.
    has_external_set : bool, default False
        Whether an external set is evaluated too.
    """
    found = [
        *_synthetic(run),
        *_unknown_model(run),
        *_without_seal(run),
        *_shared_patients(run),
        *_unknown_patients(eval_set),
        *_augmented(run),
        *_stain_targets(run),
        *_absent_labels(eval_set),
        *_never_called(eval_set),
        *_few_patients(eval_set),
        *_small_classes(eval_set),
        *_without_width(eval_set, scores),
        *_left_out(eval_set),
        *([] if has_external_set or run.source is not None else _one_source()),
    ]
    return sorted(found, key=lambda warning: not warning.severe)


def find_external_warnings(run: RunTables, manifest: Manifest) -> list[EvaluationWarning]:
    """Return the limitations of an external set: shared patients, other stains or resolution.

    Parameters
    ----------
    run : RunTables
        Without the external set.
    manifest : Manifest
        The external images.
    """
    found = [
        *_shared_ids(run, manifest, "patient_id", "patient"),
        *_unseen_stains(run, manifest),
    ]
    if _is_normalized(run.manifest) != _is_normalized(manifest):
        text = (
            "Only one of the two sets is stain-normalised, so the scores may reflect the stains. "
            "Run `glomerulab normalize` on the external set with the run's targets."
        )
        found.append(EvaluationWarning("Stains treated differently", text, severe=True))
    here, there = (m.table["mpp"].dropna() for m in (run.manifest, manifest))
    if len(here) and len(there):
        ratio = float(there.median()) / float(here.median())
        if not 0.8 <= ratio <= 1.25:
            text = (
                f"The external crops have a median of {there.median():.2f} µm per pixel, the run's "
                f"own {here.median():.2f}. Extract both at one resolution."
            )
            found.append(EvaluationWarning("Different resolution", text))
    return found


def _shared_ids(
    run: RunTables, manifest: Manifest, column: str, noun: str
) -> list[EvaluationWarning]:
    """Find ids that both sets have, also in another spelling (``12`` and ``012``)."""
    own, theirs = (set(map(str, m.table[column].dropna())) for m in (run.manifest, manifest))
    if (not own or not theirs) and noun == "slide":
        return []
    if not own or not theirs:
        text = (
            f"The {'run' if not own else 'external set'} has no patient ids, so patients that are "
            "in both sets cannot be found. Fill the column patient_id."
        )
        unknown = EvaluationWarning("Patients of the sets not compared", text)
        return [unknown, *_shared_ids(run, manifest, "slide_id", "slide")]
    by_key = {look_alike_key(name): name for name in sorted(own, reverse=True)}
    shared = sorted(
        (one, by_key[look_alike_key(one)]) for one in theirs if look_alike_key(one) in by_key
    )
    if not shared:
        return []
    n_alike = sum(one != other for one, other in shared)
    one, other = shared[0]
    first = one if one == other else f"{one!r} there and {other!r} here"
    alike = f" ({n_alike} of them in another spelling)" if n_alike else ""
    of_set = f"{noun} id of the external set occurs", f"{noun} ids of the external set occur"
    text = (
        f"{count_noun(len(shared), *of_set)} in the run's own cohort too{alike}, such as {first}. "
        "Unless two hospitals use the same numbers by chance, the set is not external."
    )
    return [EvaluationWarning(f"External set shares {noun}s", text, severe=True)]


def _unseen_stains(run: RunTables, manifest: Manifest) -> list[EvaluationWarning]:
    training = set(run.manifest.part("train").table["stain"].dropna())
    counts = manifest.table["stain"].value_counts()
    other = {str(stain): int(n) for stain, n in counts.items() if n and stain not in training}
    if not training or not other:
        return []
    named = ", ".join(f"{n} {stain}" for stain, n in other.items())
    text = (
        f"External images are of stains that the model was not trained on: {named} of "
        f"{len(manifest.table)} (trained on {', '.join(sorted(map(str, training)))}). Their scores "
        "show how the model fares on another stain, not in another hospital."
    )
    return [EvaluationWarning("External set has other stains", text, severe=True)]


def _is_normalized(manifest: Manifest) -> bool:
    table = manifest.table
    return "stain_status" in table and bool((table["stain_status"] == "normalized").any())


def _synthetic(run: RunTables) -> list[EvaluationWarning]:
    if not run.is_synthetic:
        return []
    text = (
        "The images were rendered by a program. The scores show that the pipeline works, not how "
        "it performs on patients."
    )
    return [EvaluationWarning("Synthetic data", text, severe=True)]


def _unknown_model(run: RunTables) -> list[EvaluationWarning]:
    if run.source is None:
        return []
    text = (
        f"The scores are of {run.source.name}. The images that its model was trained on are not "
        "known here, so shared patients, near-duplicates and other leakage cannot be found."
    )
    found = [EvaluationWarning("Training unknown", text)]
    if not run.has_probabilities:
        text = (
            "The table has predicted labels only. Areas under curves, calibration and the curves "
            "of this page need probabilities, and are left out or not defined."
        )
        found.append(EvaluationWarning("No probabilities", text))
    return found


def _without_seal(run: RunTables) -> list[EvaluationWarning]:
    if run.is_sealed or run.source is not None:
        return []
    text = (
        "The folder has no seal.json, as `glomerulab train` writes it, so later changes to its "
        "tables cannot be detected."
    )
    return [EvaluationWarning("Not sealed", text)]


def _shared_patients(run: RunTables) -> list[EvaluationWarning]:
    known = run.manifest.table.dropna(subset=["patient_id", "split"])
    known = known.loc[known["split"] != EXTERNAL]
    is_crossval = "fold" in known and bool(known["fold"].notna().all())
    shared = patients_in_several_parts(known, "fold" if is_crossval else "split")
    if not shared:
        return []
    text = (
        f"{len(shared)} of {known['patient_id'].nunique()} patients have images in more than one "
        f"{'fold' if is_crossval else 'split'}, so the model was evaluated on patients it was "
        "trained on. Such scores are too high; split by patient."
    )
    return [EvaluationWarning("Split by image, not by patient", text, severe=True)]


def _unknown_patients(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_without_patient == 0:
        return []
    text = (
        f"{eval_set.n_without_patient} of {eval_set.n_images} evaluated images have no patient. "
        "Each counts as a patient of its own, so the intervals are too narrow, and leakage of a "
        "patient between splits cannot be detected. Fill the column patient_id."
    )
    return [EvaluationWarning("Patients unknown", text, severe=True)]


def _augmented(run: RunTables) -> list[EvaluationWarning]:
    table = run.manifest.table
    held_out = table["split"].isin(["test", "validation"])
    n_copies = int((held_out & table["parent_id"].notna()).sum())
    if n_copies == 0:
        return []
    text = (
        f"{n_copies} images outside the training split are augmented copies. Only training images "
        "may be augmented."
    )
    return [EvaluationWarning("Augmented held-out images", text, severe=True)]


def _stain_targets(run: RunTables) -> list[EvaluationWarning]:
    table = run.manifest.table
    own = (table["split"] != EXTERNAL).to_numpy(dtype=bool, na_value=True)
    splits = target_leak_parts(run.manifest.with_table(table[own]))
    if not splits:
        return []
    text = (
        "The target of stain normalisation was taken from the "
        f"{' and the '.join(splits)} split, so the evaluated images influenced the training "
        "images. Normalise to training images."
    )
    return [EvaluationWarning("Stain target not from training", text, severe=True)]


def _absent_labels(eval_set: EvalSet) -> list[EvaluationWarning]:
    names = _names(eval_set, eval_set.n_positive == 0)
    if not names:
        return []
    text = f"No evaluated image shows {names}: its scores are not defined, and macro means omit it."
    return [EvaluationWarning("Class absent", text, severe=True)]


def _never_called(eval_set: EvalSet) -> list[EvaluationWarning]:
    names = _names(eval_set, (eval_set.calls.sum(axis=0) == 0) & (eval_set.n_positive > 0))
    if not names:
        return []
    text = f"The model never called {names}: its precision is not defined, nor is the macro mean."
    return [EvaluationWarning("Class never called", text, severe=True)]


def _few_patients(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_patients == 1:
        text = "All evaluated images are of one patient: intervals are not defined."
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


def _without_width(eval_set: EvalSet, scores: pd.DataFrame) -> list[EvaluationWarning]:
    """Name the scores that no resampling changes, such as those of a model without any error."""
    same = scores.loc[(scores["interval_method"] == RULE_OF_THREE).fillna(value=False)]
    if same.empty:
        return []
    ids = set(same["label"].dropna())
    found = [label.name for label in eval_set.taxonomy.labels if label.id in ids]
    labels = f" of {', '.join(found)}" if found else ""
    title = "Scores without any error" if (same["value"] == 1.0).all() else "Scores that never vary"
    text = (
        f"Some scores{labels} are the same in every resample of patients, so resampling gives no "
        f"interval. Those marked {MARK} are by the rule of three instead: what was seen in none of "
        f"{eval_set.n_patients} patients may still occur in up to "
        f"{unseen_share(eval_set.n_patients):.0%} of patients, and in more where fewer patients "
        "have the class."
    )
    return [EvaluationWarning(title, text)]


def _left_out(eval_set: EvalSet) -> list[EvaluationWarning]:
    if eval_set.n_left_out == 0:
        return []
    reason = (
        "have no label, several labels or an unknown one, so a model with exactly one class per "
        "image cannot be scored on them"
        if eval_set.head == "softmax"
        else "have no known label"
    )
    return [
        EvaluationWarning("Images left out", f"{eval_set.n_left_out} held-out images {reason}.")
    ]


def _one_source() -> list[EvaluationWarning]:
    text = (
        "Training and test images come from one collection. Performance on the slides of another "
        "hospital is unknown; measure it with `glomerulab evaluate RUN --on MANIFEST`."
    )
    return [EvaluationWarning("No external set", text)]


def _names(eval_set: EvalSet, which: npt.NDArray[np.bool_]) -> str:
    return ", ".join(eval_set.taxonomy.labels[k].name for k in np.flatnonzero(which))
