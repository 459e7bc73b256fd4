"""Texts about a run: headline, data, model card, settings and reporting checklists."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from glomerulab.cohort.leakage import patients_in_several_parts
from glomerulab.cohort.schema import SPLITS
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.result import EvaluationResult
from glomerulab.evaluation.run_tables import EXTERNAL, RunTables
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.tables import percent, score_of
from glomerulab.runtime.messages import count_noun

CHECKLISTS = ("tripod_ai", "claim")
FOR_THE_AUTHOR = "for the author"
NO_EXTERNAL_SET = "None: internal evaluation only."
NOT_STATED = "not stated"


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    number: str
    topic: str
    facts: tuple[str, ...] = ()
    """Names of the `known_facts` that it asks for, in part or in full."""


class Checklist(BaseModel):
    """A reporting guideline with paraphrased items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    items: tuple[_Item, ...]


def headline(eval_set: EvalSet, scores: pd.DataFrame, *, kind: str = "held-out") -> str:
    """Return one sentence with the main score and its baseline; `kind` names the images."""
    softmax = eval_set.head == "softmax"
    found = score_of(scores, "accuracy" if softmax else "exact_match")
    models = "models" if "fold" in eval_set.rows else "model"
    was = "were" if models == "models" else "was"
    what = f"{was} correct on" if softmax else "had every label correct on"
    interval = "interval not defined"
    if not np.isnan(found.low):
        interval = f"95 % interval {100 * found.low:.1f} to {percent(found.high)}"
        if found.is_rule_of_three:
            interval += " by the rule of three, since no resample of patients differs"
    return (
        f"On {count_noun(eval_set.n_images, f'{kind} image')} of "
        f"{_of_patients(eval_set)}, the {models} {what} {percent(found.value)} "
        f"({interval}). {_baseline(eval_set)}"
    )


def result_headline(result: EvaluationResult) -> str:
    """Return the `headline` of an evaluation."""
    kind = "external" if result.split == EXTERNAL else "held-out"
    if result.run.source is not None:
        kind = "evaluated"
    return headline(result.eval_set, result.scores, kind=kind)


def _of_patients(eval_set: EvalSet) -> str:
    if eval_set.n_without_patient == eval_set.n_images:
        return "unknown patients"
    return count_noun(eval_set.n_patients, "patient")


def summary(eval_set: EvalSet, *, n_resamples: int) -> tuple[str, ...]:
    """Return how the headline was computed."""
    decision = (
        "The call of an image is its most probable class."
        if eval_set.head == "softmax"
        else "Each label is called present from a probability of 0.5 on."
    )
    if not eval_set.has_probabilities:
        decision = "The call of an image is the predicted label of the table."
    unit = "patients"
    if eval_set.n_without_patient == eval_set.n_images:
        unit = "images, since their patients are unknown"
    return (f"{decision} Intervals: {n_resamples:,} resamples of {unit}, percentile method.",)


def data_table(run: RunTables) -> Table:
    """Return the counts of images, patients and labels in each split of the manifest."""
    rows = []
    for name in (*SPLITS, EXTERNAL):
        part = run.manifest.part(name).table
        if part.empty:
            continue
        patients = part["patient_id"].nunique()
        labels = [str(int((part[label_id] == 1).sum())) for label_id in run.taxonomy.label_ids]
        rows.append((name, str(len(part)), str(patients) if patients else "unknown", *labels))
    names = tuple(label.name for label in run.taxonomy.labels)
    return Table(
        "Training and evaluation data",
        ("Split", "Images", "Patients", *names),
        tuple(rows),
        note=f"{split_note(run)}{_copies(run)}",
    )


def split_note(run: RunTables) -> str:
    """Return whether any patient has images in more than one split."""
    if run.source is not None:
        return "The images that the model was trained on are not known."
    known = run.manifest.table.dropna(subset=["patient_id", "split"])
    known = known.loc[known["split"] != EXTERNAL]
    if known.empty:
        return "The manifest has no patients or no split."
    shared = patients_in_several_parts(known)
    if shared:
        return f"Split by image: {len(shared)} patients have images in more than one split."
    return "Split by patient: no patient has images in more than one split."


def model_card(result: EvaluationResult) -> Table:
    """Return the model card, with the sections of Mitchell et al. 2019."""
    run = result.run
    training = run.manifest.part("train").table
    stains = ", ".join(sorted(training["stain"].dropna().unique())) or "unknown"
    labels = ", ".join(label.name for label in run.taxonomy.labels)
    severe = [warning.title for warning in result.warnings if warning.severe]
    trained_on = f"{len(training)} images of {training['patient_id'].nunique()} patients"
    if run.source is not None:
        trained_on, stains = NOT_STATED, NOT_STATED
    rendered = "; rendered by a program" if run.is_synthetic else ""
    to_fill_in = "For the author to fill in."
    rows = (
        (
            "Model",
            f"{_model_name(run)}, {run.head} head; seed {run.config.get('seed', NOT_STATED)}",
        ),
        ("Output", f"{labels}, for one image"),
        ("Intended use", "Research on images like those it was trained on, read by a pathologist."),
        ("Not for", "Diagnosis or treatment; any decision about a patient."),
        ("Training data", f"{trained_on}; stains: {stains}{rendered}"),
        *_starting_weights(run),
        ("Evaluation", result_headline(result)),
        ("Known weaknesses", ", ".join(severe) if severe else "See the warnings above."),
        ("Origin of the images", to_fill_in),
        ("Annotators and their agreement", to_fill_in),
        ("Patient groups not represented", to_fill_in),
    )
    return Table("Model card", ("Section", "What is known"), rows, is_settings=True)


def _starting_weights(run: RunTables) -> tuple[tuple[str, str], ...]:
    """Return source, licence and citation of published starting weights, if the run has such."""
    facts = run.environment.get("starting_weights")
    if not isinstance(facts, dict):
        return ()
    licence = facts.get("licence", "not stated in their files")
    citation = f"; cite {facts['citation']}" if "citation" in facts else ""
    return (("Starting weights", f"{facts.get('source')}; licence: {licence}{citation}"),)


def appendix_tables(run: RunTables, eval_set: EvalSet) -> tuple[Table, ...]:
    """Return the settings of the model and the training environment."""
    about = (
        ("Taxonomy", f"{run.taxonomy.name}: {', '.join(eval_set.taxonomy.label_ids)}"),
        ("Head", "softmax (one class)" if run.head == "softmax" else "sigmoid (any labels)"),
        ("Epochs run", str(len(run.history)) if len(run.history) else "no history kept"),
        ("Stains evaluated", _stains(eval_set)),
    )
    model = run.config.get("model")
    rows = _flat(model) if isinstance(model, dict) else ()
    environment = _flat(run.environment) or (("environment.json", "not kept"),)
    return (
        Table("Model and task", ("Setting", "Value"), (*about, *rows), is_settings=True),
        Table("Environment", ("Item", "Value"), environment, is_settings=True, is_english=True),
    )


def checklist_tables(
    result: EvaluationResult, *, external: str = NO_EXTERNAL_SET
) -> tuple[Table, ...]:
    """Return every reporting checklist, answered where the run allows."""
    facts = known_facts(result, external=external)
    return tuple(_checklist_table(load_checklist(name), facts) for name in CHECKLISTS)


def load_checklist(name: str) -> Checklist:
    """Read one of `CHECKLISTS` from the package."""
    text = resources.files("glomerulab.reports.run").joinpath(f"checklists_{name}.toml")
    return Checklist.model_validate(tomllib.loads(text.read_text("utf-8")))


def known_facts(result: EvaluationResult, *, external: str = NO_EXTERNAL_SET) -> dict[str, str]:
    """Return the facts that the checklists refer to, by name, in one sentence each."""
    run, eval_set, fitted = result.run, result.eval_set, result.fitted
    splits = "; ".join(
        f"{split}: {len(rows)} images of {rows['patient_id'].nunique()} patients"
        for split, rows in run.manifest.table.groupby("split", sort=False)
    )
    classes = ", ".join(
        f"{label.name} {count}"
        for label, count in zip(run.taxonomy.labels, eval_set.n_positive, strict=True)
    )
    return {
        "title": "A model that labels images of tissue.",
        "outcome": "Labels: " + ", ".join(label.name for label in run.taxonomy.labels) + ".",
        "parts": f"{splits}.",
        "split": split_note(run),
        "classes": f"Evaluated images by label: {classes}.",
        "missing": f"{eval_set.n_left_out} held-out images without usable labels were left out.",
        "model": f"{_model_name(run)}, {run.head} head; see Model and task.",
        "training": NOT_STATED.capitalize() + "."
        if run.source is not None
        else "See Configuration; learning curves are among the figures.",
        "selection": f"Kept weights: {run.config.get('keep', NOT_STATED)}.",
        "software": "See Environment.",
        "seed": f"Seed {run.config.get('seed', NOT_STATED)}.",
        "threshold": "The most probable class."
        if run.head == "softmax"
        else "Each label from a probability of 0.5 on.",
        "measures": "Accuracy, recall, specificity, precision, F1, MCC, κ, ROC-AUC, average "
        "precision, calibration, net benefit.",
        "uncertainty": f"Percentile bootstrap over patients, {result.n_resamples:,} resamples.",
        "calibration": "Not fitted: no validation split."
        if fitted is None
        else f"Temperature {fitted.temperature:.2f}, fitted on {fitted.n_images} images.",
        "performance": result_headline(result),
        "subgroups": "By stain, slide and patient: see the tables.",
        "failures": "See Worst errors.",
        "explained": "`glomerulab explain` draws and tests saliency; see Worst errors.",
        "external": external,
        "limits": "; ".join(warning.title for warning in result.warnings) + ".",
    }


def _checklist_table(checklist: Checklist, facts: Mapping[str, str]) -> Table:
    rows = tuple(
        (
            f"{item.number}. {item.topic}",
            " ".join(facts[name] for name in item.facts) or FOR_THE_AUTHOR,
        )
        for item in checklist.items
    )
    n_known = sum(bool(item.facts) for item in checklist.items)
    return Table(
        checklist.name,
        ("Item", "Answer from the run"),
        rows,
        is_settings=True,
        is_english=True,
        is_collapsed=True,
        note=f"{checklist.source} Items are paraphrased. {n_known} of {len(rows)} are answered, at "
        f"least in part, from the run; the others are marked “{FOR_THE_AUTHOR}”.",
    )


def _baseline(eval_set: EvalSet) -> str:
    """Return the score of the most frequent answer."""
    if eval_set.head == "softmax":
        most = int(np.argmax(eval_set.n_positive))
        name = eval_set.taxonomy.labels[most].name
        share = eval_set.n_positive[most] / eval_set.n_images
        return f"Always calling “{name}” would be correct on {percent(float(share))}."
    known = eval_set.labels[~np.isnan(eval_set.labels).any(axis=1)]
    if len(known) == 0:
        return "No image has all its labels known."
    _, counts = np.unique(known, axis=0, return_counts=True)
    share = counts.max() / len(known)
    return (
        f"Always calling the most frequent combination would be correct on {percent(float(share))}."
    )


def _copies(run: RunTables) -> str:
    """Return a sentence about augmented training images, where there are any."""
    training = run.manifest.part("train").table
    n_copies = int(training["parent_id"].notna().sum())
    return (
        f" {n_copies} of the {len(training)} training images are augmented copies."
        if n_copies
        else ""
    )


def _stains(eval_set: EvalSet) -> str:
    if "stain" not in eval_set.rows:
        return "unknown"
    counts = eval_set.rows["stain"].fillna("unknown").value_counts()
    return ", ".join(f"{stain} {count}" for stain, count in counts.items())


def _model_name(run: RunTables) -> str:
    model = run.config.get("model")
    return str(model.get("name", NOT_STATED)) if isinstance(model, dict) else NOT_STATED


def _flat(mapping: dict[str, Any], prefix: str = "") -> tuple[tuple[str, str], ...]:
    """Flatten nested settings into (dotted key, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in mapping.items():
        if isinstance(value, dict):
            rows.extend(_flat(value, f"{prefix}{key}."))
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return tuple(rows)
