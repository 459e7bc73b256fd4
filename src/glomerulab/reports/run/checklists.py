"""Reporting checklists, filled from what the run knows; the rest is marked as for the author."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict

from glomerulab.evaluation.result import EvaluationResult
from glomerulab.reports.run.facts import headline, split_note
from glomerulab.reports.run.html import Table

__all__ = ["CHECKLISTS", "Checklist", "checklist_tables", "known_facts", "load_checklist"]

CHECKLISTS = ("tripod_ai", "claim")
FOR_THE_AUTHOR = "for the author"
NO_EXTERNAL_SET = "None: internal evaluation only."


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    number: str
    topic: str
    facts: tuple[str, ...] = ()
    """Names of `known_facts` that answer it, in part or whole."""


class Checklist(BaseModel):
    """One reporting guideline, its items paraphrased."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    items: tuple[_Item, ...]


def checklist_tables(
    judgement: EvaluationResult, *, external: str = NO_EXTERNAL_SET
) -> tuple[Table, ...]:
    """Return every checklist with what the run knows of each item.

    Parameters
    ----------
    judgement : Judgement
    external : str
        What is known of an external set.

    Returns
    -------
    tuple of Table
    """
    facts = known_facts(judgement, external=external)
    return tuple(_table(load_checklist(name), facts) for name in CHECKLISTS)


def load_checklist(name: str) -> Checklist:
    """Read one of `CHECKLISTS` from the package."""
    text = resources.files("glomerulab.reports.run").joinpath(f"checklists_{name}.toml")
    return Checklist.model_validate(tomllib.loads(text.read_text("utf-8")))


def known_facts(judgement: EvaluationResult, *, external: str = NO_EXTERNAL_SET) -> dict[str, str]:
    """Return what the run knows that checklists ask for, by name.

    Parameters
    ----------
    judgement : Judgement
    external : str
        What is known of an external set.

    Returns
    -------
    dict of str to str
        One sentence each.
    """
    run, eval_set, fitted = judgement.run, judgement.eval_set, judgement.fitted
    table = run.manifest.table
    parts = "; ".join(
        f"{part}: {len(rows)} images of {rows['patient_id'].nunique()} patients"
        for part, rows in table.groupby("split", sort=False)
    )
    classes = ", ".join(
        f"{label.name} {count}"
        for label, count in zip(run.taxonomy.labels, eval_set.n_positive, strict=True)
    )
    return {
        "title": "A model that labels images of tissue.",
        "outcome": "Labels: " + ", ".join(label.name for label in run.taxonomy.labels) + ".",
        "parts": f"{parts}.",
        "split": split_note(run),
        "classes": f"Judged images by label: {classes}.",
        "missing": f"{eval_set.n_left_out} held-out images could not be judged and were left out.",
        "model": f"{_setting(run.config, 'model', 'name')}, {run.head} head; see Model and task.",
        "training": "See Configuration; learning curves are among the figures.",
        "selection": f"Kept weights: {run.config.get('keep', 'not stated')}.",
        "software": "See Environment.",
        "seed": f"Seed {run.config.get('seed', 'not stated')}.",
        "threshold": "The most probable class."
        if run.head == "softmax"
        else "Each label from a probability of 0.5 on.",
        "measures": "Accuracy, recall, specificity, precision, F1, MCC, κ, ROC-AUC, average "
        "precision, calibration, net benefit.",
        "uncertainty": f"Percentile bootstrap over patients, {judgement.n_resamples:,} resamples.",
        "calibration": "Not fitted: no validation part."
        if fitted is None
        else f"Temperature {fitted.temperature:.2f}, fitted on {fitted.n_images} images.",
        "performance": headline(eval_set, judgement.scores),
        "subgroups": "By stain, slide and patient: see the tables.",
        "failures": "See Worst errors.",
        "explained": "`glomerulab explain` draws and tests saliency; see Worst errors.",
        "external": external,
        "limits": "; ".join(warning.title for warning in judgement.warnings) + ".",
    }


def _table(checklist: Checklist, facts: Mapping[str, str]) -> Table:
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
        ("Item", "What the run knows"),
        rows,
        is_settings=True,
        is_collapsed=True,
        note=f"{checklist.source} Items are paraphrased. {n_known} of {len(rows)} are answered, at "
        f"least in part, from the run; the others are marked “{FOR_THE_AUTHOR}”.",
    )


def _setting(config: Mapping[str, Any], section: str, key: str) -> str:
    found = config.get(section)
    return str(found.get(key, "not stated")) if isinstance(found, dict) else "not stated"
