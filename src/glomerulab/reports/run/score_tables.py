"""The score table as a reader sees it: all labels together, and label by label."""

import math

import pandas as pd

from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.scores import OVERALL_SCORES
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_words import NOT_DEFINED, rounded, score_words

__all__ = ["delong_table", "label_table", "overall_table", "score_of"]

SHOWN_PER_LABEL = ("recall", "specificity", "precision", "f1", "roc_auc", "average_precision")


def score_of(scores: pd.DataFrame, score: str, label: str | None = None) -> dict[str, float]:
    """Return ``value``, ``low`` and ``high`` of one score; without a label, of all together."""
    of_label = (
        scores["label"].isna() if label is None else (scores["label"] == label).fillna(value=False)
    )
    row = scores.loc[of_label.astype(bool) & (scores["score"] == score)].iloc[0]
    return {name: float(row[name]) for name in ("value", "low", "high")}


def overall_table(eval_set: EvalSet, scores: pd.DataFrame) -> Table:
    """Return the scores of all labels together, each with its interval and its meaning."""
    rows = []
    for score in OVERALL_SCORES[eval_set.head]:
        found = score_of(scores, score)
        name, meaning = score_words(score)
        rows.append((f"{name}\n{meaning}", rounded(found["value"]), _interval(found)))
    return Table(
        "Scores",
        ("Score", "Value", "95 % interval"),
        tuple(rows),
        note="Intervals come from resampling patients, not images: images of one patient resemble "
        f"each other. “{NOT_DEFINED}” means that the images do not suffice to say.",
    )


def label_table(eval_set: EvalSet, scores: pd.DataFrame) -> Table:
    """Return each label against the rest, with counts."""
    rows = []
    for k, label in enumerate(eval_set.taxonomy.labels):
        found = [score_of(scores, name, label.id) for name in SHOWN_PER_LABEL]
        cells = [f"{rounded(one['value'])}\n{_interval(one)}" for one in found]
        counts = f"{eval_set.n_positive[k]}\nof {eval_set.n_patients_positive[k]} patients"
        rows.append((label.name, counts, *cells))
    columns = ("Class", "Images", *(score_words(name)[0] for name in SHOWN_PER_LABEL))
    return Table(
        "Each class against the rest",
        columns,
        tuple(rows),
        note="Value, and under it the 95 % interval. Recall is sensitivity: of the images of the "
        "class, the share found. Precision: of the images called so, the share that are.",
    )


def delong_table(eval_set: EvalSet, delong: pd.DataFrame) -> tuple[Table, ...]:
    """Return the ROC areas by DeLong as a table, where there are any."""
    if delong.empty:
        return ()
    names = {label.id: label.name for label in eval_set.taxonomy.labels}
    rows = tuple(
        (names[row["label"]], rounded(row["auc"]), f"{row['low']:.3f} to {row['high']:.3f}")
        for row in delong.to_dict("records")
    )
    return (
        Table(
            "ROC-AUC by DeLong",
            ("Class", "ROC-AUC", "95 % interval"),
            rows,
            note="Every judged image is of another patient, so DeLong's variance holds too and can "
            "be compared with papers that give it.",
        ),
    )


def _interval(found: dict[str, float]) -> str:
    if math.isnan(found["value"]):
        return ""
    if math.isnan(found["low"]):
        return NOT_DEFINED
    return f"{found['low']:.3f} to {found['high']:.3f}"
