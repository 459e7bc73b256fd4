"""What a report says in words of a run: the headline, the data, the settings, the versions."""

from typing import Any

import numpy as np
import pandas as pd

from glomerulab.cohort.leakage import patients_in_several_parts
from glomerulab.cohort.schema import SPLITS
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_tables import score_of
from glomerulab.reports.run.score_words import percent
from glomerulab.runtime.messages import count_noun

__all__ = ["appendix_tables", "data_table", "headline", "split_note", "summary"]


def headline(eval_set: EvalSet, scores: pd.DataFrame, *, kind: str = "held-out") -> str:
    """Say in one sentence what was judged and how it went.

    Parameters
    ----------
    judged : Judged
    scores : DataFrame
        See `glomerulab.evaluation.scores.score_table`.
    kind : str, default "held-out"
        What the images are called.

    Returns
    -------
    str
    """
    softmax = eval_set.head == "softmax"
    found = score_of(scores, "accuracy" if softmax else "exact_match")
    what = "was right on" if softmax else "had every label right on"
    interval = (
        "interval not defined"
        if np.isnan(found["low"])
        else f"95 % interval {100 * found['low']:.1f} to {percent(found['high'])}"
    )
    return (
        f"On {count_noun(eval_set.n_images, f'{kind} image')} of "
        f"{count_noun(eval_set.n_patients, 'patient')}, the model {what} {percent(found['value'])} "
        f"({interval}). {_chance(eval_set)}"
    )


def summary(eval_set: EvalSet, *, n_resamples: int) -> tuple[str, ...]:
    """Say how the headline was reached."""
    answer = (
        "The model answers each image with exactly one class, the most probable."
        if eval_set.head == "softmax"
        else "The model answers each label on its own; a label is called present from 0.5 on."
    )
    return (f"{answer} Intervals: {n_resamples:,} resamples of patients, percentile method.",)


def data_table(run: RunTables) -> Table:
    """Count images, patients and labels in each part of the manifest."""
    table = run.manifest.table
    rows = []
    for name in (*SPLITS, EXTERNAL):
        part = table.loc[(table["split"] == name).fillna(value=False).astype(bool)]
        if part.empty:
            continue
        patients = part["patient_id"].nunique()
        labels = [str(int((part[label_id] == 1).sum())) for label_id in run.taxonomy.label_ids]
        rows.append((name, str(len(part)), str(patients) if patients else "unknown", *labels))
    names = tuple(label.name for label in run.taxonomy.labels)
    return Table(
        "What it was trained and judged on",
        ("Part", "Images", "Patients", *names),
        tuple(rows),
        note=f"{split_note(run)}{_copies(run)}",
    )


def appendix_tables(run: RunTables, eval_set: EvalSet) -> tuple[Table, ...]:
    """Return settings of the model and the environment it was trained in."""
    about = (
        ("Taxonomy", f"{run.taxonomy.name}: {', '.join(eval_set.taxonomy.label_ids)}"),
        ("Head", "softmax (one class)" if run.head == "softmax" else "sigmoid (any labels)"),
        ("Epochs run", str(len(run.history)) if len(run.history) else "no history kept"),
        ("Stains judged", _stains(eval_set)),
    )
    model = run.config.get("model")
    rows = _flat(model) if isinstance(model, dict) else ()
    environment = _flat(run.environment) or (("environment.json", "not kept"),)
    return (
        Table("Model and task", ("Setting", "Value"), (*about, *rows), is_settings=True),
        Table("Environment", ("What", "Value"), environment, is_settings=True),
    )


def _chance(eval_set: EvalSet) -> str:
    """Say what the most frequent answer would reach, without looking."""
    if eval_set.head == "softmax":
        most = int(np.argmax(eval_set.n_positive))
        name = eval_set.taxonomy.labels[most].name
        share = eval_set.n_positive[most] / eval_set.n_images
        return f"Always answering “{name}” would be right on {percent(float(share))}."
    known = eval_set.labels[~np.isnan(eval_set.labels).any(axis=1)]
    if len(known) == 0:
        return "No image has all its labels known."
    _, counts = np.unique(known, axis=0, return_counts=True)
    share = counts.max() / len(known)
    return f"Always giving the most frequent combination would reach {percent(float(share))}."


def split_note(run: RunTables) -> str:
    """Say whether any patient stands in more than one part."""
    known = run.manifest.table.dropna(subset=["patient_id", "split"])
    known = known.loc[known["split"] != EXTERNAL]
    if known.empty:
        return "The manifest does not say patients or split."
    shared = patients_in_several_parts(known)
    if shared:
        return f"Split by image: {len(shared)} patients stand in more than one part."
    return "Split by patient: no patient stands in more than one part."


def _copies(run: RunTables) -> str:
    """Say how many training images were made from others."""
    table = run.manifest.table
    training = (table["split"] == "train").fillna(value=False).to_numpy(dtype=bool)
    n_copies = int((training & table["parent_id"].notna().to_numpy(dtype=bool)).sum())
    if not n_copies:
        return ""
    return f" {n_copies} of the {int(training.sum())} training images were made from the others."


def _stains(eval_set: EvalSet) -> str:
    if "stain" not in eval_set.rows:
        return "unknown"
    counts = eval_set.rows["stain"].fillna("unknown").value_counts()
    return ", ".join(f"{stain} {count}" for stain, count in counts.items())


def _flat(mapping: dict[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Flatten nested settings into (dotted key, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return tuple(rows)
