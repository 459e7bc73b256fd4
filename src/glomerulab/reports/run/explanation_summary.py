"""Summary of explanation methods: pointing game, deletion and insertion, with intervals."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from glomerulab.evaluation.intervals import MIN_RESAMPLES, RULE_OF_THREE, mean_interval

__all__ = ["explanation_summary", "sanity_summary", "summary_lines"]

MEASURES = ("points_inside", "energy_inside", "deletion", "insertion")


def explanation_summary(
    table: pd.DataFrame, *, n_resamples: int = MIN_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Average the measures of each explanation method, over all labels and for each.

    Parameters
    ----------
    table : DataFrame
        One row per image, label and method: ``image_id``, ``patient_id``, ``label``, ``method``,
        and any of ``points_inside``, ``energy_inside``, ``mask_share``, ``deletion``,
        ``insertion``.
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0

    Returns
    -------
    DataFrame
        One row per label (empty: all together), method and measure: ``label``, ``method``,
        ``measure``, ``value``, ``low``, ``high``, ``interval_method``, ``chance`` (of a uniform
        map; only for the two measures that need a mask), ``n_maps``, ``n_patients``.
    """
    rows = []
    labels = [None, *table["label"].dropna().drop_duplicates()] if len(table) else []
    for label in labels:
        of_label = table if label is None else table.loc[table["label"] == label]
        for method, maps in of_label.groupby("method", sort=False):
            rows += [
                {"label": label, "method": method, **_measured(maps, measure, n_resamples, seed)}
                for measure in MEASURES
                if measure in maps and maps[measure].notna().any()
            ]
    return pd.DataFrame(rows)


def sanity_summary(table: pd.DataFrame) -> pd.DataFrame:
    """Average the rank correlations of the sanity check by method and share of random layers.

    `table` has the columns ``method``, ``random_share`` and ``rank_correlation``, NaN where a map
    is empty; the result adds ``n_maps`` and ``n_empty``.
    """
    groups = table.groupby(["method", "random_share"], sort=False)["rank_correlation"]
    return groups.agg(
        rank_correlation="mean",
        n_maps="size",
        n_empty=lambda values: int(values.isna().sum()),
    ).reset_index()


def summary_lines(summary: pd.DataFrame) -> list[str]:
    """Return one line per method about the pointing game; none without masks."""
    if summary.empty:
        return []
    pointing = summary.loc[summary["label"].isna() & (summary["measure"] == "points_inside")]
    return [
        f"{row['method']}: points at the lesion in {_percent(row['value'])} of {row['n_maps']} "
        f"maps ({_ends(row)}); chance {_percent(row['chance'])}"
        for row in pointing.to_dict("records")
    ]


def _measured(maps: pd.DataFrame, measure: str, n_resamples: int, seed: int) -> dict[str, object]:
    known = maps.loc[maps[measure].notna()]
    values = known[measure].to_numpy(dtype=np.float64)
    # An image without a patient counts as its own.
    names = known["patient_id"].astype("string").fillna(known["image_id"].astype("string"))
    patients, _ = pd.factorize(names)
    interval = mean_interval(values, patients, n_resamples=n_resamples, seed=seed)
    needs_mask = measure in {"points_inside", "energy_inside"}
    return {
        "measure": measure,
        "value": float(values.mean()),
        "low": interval.low,
        "high": interval.high,
        "interval_method": interval.method,
        "chance": float(known["mask_share"].mean()) if needs_mask else np.nan,
        "n_maps": len(known),
        "n_patients": len(np.unique(patients)),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _ends(row: Mapping[Hashable, Any]) -> str:
    if np.isnan(row["low"]):
        return "interval not defined"
    ends = f"95 % interval {100 * row['low']:.0f} to {100 * row['high']:.0f}"
    if row["interval_method"] == RULE_OF_THREE:
        return f"{ends} by the rule of three, since every resample of patients gives the same"
    return ends
