"""The same score in parts of the cohort: by stain, slide, patient, or any other column."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import patient_weights, percentile_interval
from glomerulab.evaluation.risk_coverage import image_is_right

__all__ = ["SUBGROUP_COLUMNS", "subgroup_table"]

SUBGROUP_COLUMNS = ("stain", "agreement", "slide_id", "patient_id")
"""What a report looks into. ``agreement`` is how far annotators agreed on the image's labels: a
share from 0 to 1, or words."""

UNKNOWN = "unknown"
AGREEMENT_LEVELS = ("all agree", "most agree", "half or fewer agree")


def subgroup_table(
    eval_set: EvalSet, column: str, *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Count images and right calls in each group.

    Parameters
    ----------
    judged : Judged
    column : str
        A column of `Judged.rows`; empty cells are one group, "unknown".
    n_resamples : int, default 2000
    seed : int, default 0

    Returns
    -------
    DataFrame
        One row per group, by falling size: ``column``, ``group``, ``n_images``, ``n_patients``,
        ``n_right``, ``share_right`` (every known label right), ``low``, ``high``. The interval is
        over patients, and NaN where a group is of one patient.

    Raises
    ------
    ValueError
        If there is no such column.
    """
    if column not in eval_set.rows:
        raise ValueError(f"no column {column!r} in the predictions")
    groups = _groups(eval_set.rows[column])
    right = image_is_right(eval_set)
    rows = []
    for group in groups.drop_duplicates():
        inside = (groups == group).to_numpy(dtype=bool)
        low, high = _interval(right[inside], eval_set.patients[inside], n_resamples, seed)
        rows.append(
            {
                "column": column,
                "group": str(group),
                "n_images": int(inside.sum()),
                "n_patients": len(np.unique(eval_set.patients[inside])),
                "n_right": int(right[inside].sum()),
                "share_right": float(right[inside].mean()),
                "low": low,
                "high": high,
            }
        )
    order = ["n_images", "group"]
    return pd.DataFrame(rows).sort_values(order, ascending=[False, True], ignore_index=True)


def _groups(cells: pd.Series) -> pd.Series:
    """Name each image's group; shares of agreement are put into levels."""
    text = cells.astype("string")
    shares = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    is_share = cells.name == "agreement" and bool(((shares >= 0) & (shares <= 1)).any())
    if is_share:
        levels = np.select([shares >= 1, shares > 0.5, shares >= 0], AGREEMENT_LEVELS, default="")
        inside = (shares >= 0) & (shares <= 1)
        text = text.mask(inside, pd.Series(levels, index=text.index, dtype="string"))
    return text.fillna(UNKNOWN)


def _interval(
    right: npt.NDArray[np.bool_],
    patients: npt.NDArray[np.intp],
    n_resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Resample the patients of one group."""
    _, numbers = np.unique(patients, return_inverse=True)
    n_patients = int(numbers.max()) + 1
    if n_patients < 2:
        return float("nan"), float("nan")
    weights = patient_weights(n_patients, n_resamples=n_resamples, seed=seed)
    n_right = weights @ np.bincount(numbers, weights=right)
    n_images = weights @ np.bincount(numbers).astype(np.float64)
    interval = percentile_interval(n_right / n_images)
    return interval.low, interval.high
