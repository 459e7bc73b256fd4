"""The score in parts of the cohort, as a reader sees it: all stains, and the worst of the many."""

import math

import pandas as pd

from glomerulab.evaluation.result import EvaluationResult
from glomerulab.reports.run.html import Table
from glomerulab.reports.run.score_words import percent

__all__ = ["subgroup_tables"]

TITLES = {
    "stain": "By stain",
    "agreement": "By agreement of the annotators",
    "slide_id": "By slide",
    "patient_id": "By patient",
}
MAX_ROWS = 12


def subgroup_tables(judgement: EvaluationResult) -> tuple[Table, ...]:
    """Return one table per grouping; of long ones only the groups with the lowest share right.

    Parameters
    ----------
    judgement : Judgement

    Returns
    -------
    tuple of Table
    """
    if judgement.subgroups.empty:
        return ()
    found = judgement.subgroups
    return tuple(
        _table(TITLES.get(column, f"By {column}"), found.loc[found["column"] == column])
        for column in found["column"].drop_duplicates()
    )


def _table(title: str, groups: pd.DataFrame) -> Table:
    shown = groups.sort_values(["share_right", "n_images"], ascending=[True, False])
    note = (
        "Right: every known label of the image called right; under it the 95 % interval, where a "
    )
    note += "group has several patients."
    if len(groups) > MAX_ROWS:
        shown = shown.head(MAX_ROWS)
        note += f" The {MAX_ROWS} lowest of {len(groups)}; all of them are in subgroups.csv."
    rows = tuple(
        (
            str(row["group"]),
            str(row["n_images"]),
            str(row["n_patients"]),
            f"{percent(row['share_right'])}\n{row['n_right']} of {row['n_images']}"
            + _interval(row["low"], row["high"]),
        )
        for row in shown.to_dict("records")
    )
    columns = ("Group", "Images", "Patients", "Right")
    return Table(title, columns, rows, note=note)


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"\n{percent(low)} to {percent(high)}"
