"""The table of scores: every number of a report, each with its interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.evaluation.confusion import (
    BinaryCounts,
    accuracy,
    binary_counts,
    cohen_kappa,
    f1,
    label_counts_by_patient,
    matrices_by_patient,
    matthews,
    matthews_binary,
    precision,
    recall,
    specificity,
)
from glomerulab.evaluation.discrimination import (
    average_precision,
    resampled_discrimination,
    roc_auc,
)
from glomerulab.evaluation.eval_set import Judged
from glomerulab.evaluation.intervals import MIN_RESAMPLES, patient_weights, percentile_interval

__all__ = ["LABEL_SCORES", "OVERALL_SCORES", "score_table"]

FloatArray = npt.NDArray[np.float64]

OVERALL_SCORES = {
    "softmax": (
        "accuracy",
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_specificity",
        "macro_f1",
        "mcc",
        "kappa",
        "macro_roc_auc",
        "macro_average_precision",
    ),
    "sigmoid": (
        "exact_match",
        "label_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_specificity",
        "macro_f1",
        "macro_mcc",
        "macro_kappa",
        "macro_roc_auc",
        "macro_average_precision",
    ),
}
"""Scores of all labels together, by head, in the order of the table."""

LABEL_SCORES = (
    "precision",
    "recall",
    "specificity",
    "f1",
    "mcc",
    "kappa",
    "roc_auc",
    "average_precision",
)
"""Scores of each label against the rest, in the order of the table."""

NEEDS_POSITIVE = {"precision", "recall", "f1", "mcc", "kappa", "roc_auc", "average_precision"}
NEEDS_NEGATIVE = {"specificity", "mcc", "kappa", "roc_auc", "average_precision"}


@dataclass(frozen=True)
class _Values:
    """Scores of R resamples: overall by name (R,), per label by name (R, K)."""

    overall: dict[str, FloatArray]
    per_label: dict[str, FloatArray]


def score_table(
    judged: Judged, *, n_resamples: int = MIN_RESAMPLES, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Compute every score with its patient-clustered bootstrap interval.

    Parameters
    ----------
    judged : Judged
    n_resamples : int, default 2000
    seed : int, default 0
        Same seed, same intervals.
    level : float, default 0.95

    Returns
    -------
    DataFrame
        Columns ``label`` (id, or empty for all together), ``score``, ``value``, ``low``, ``high``,
        ``defined_share`` (of the resamples), ``n_images``, ``n_positive``, ``n_patients``. NaN
        means "not defined": the class is absent, or never called, or too few patients carry it.

    Notes
    -----
    A macro score is the plain mean over the labels that occur among the judged images; it is not
    defined where one of its terms is not. With a single patient no interval is defined.
    """
    point = _values(judged, np.ones((1, judged.n_patients)), exact=True)
    if judged.n_patients > 1:
        weights = patient_weights(judged.n_patients, n_resamples=n_resamples, seed=seed)
        resampled = _values(judged, weights, exact=False)
    else:
        resampled = _undefined_like(point)
    rows = [
        _row(judged, None, name, (point.overall[name], resampled.overall[name]), level)
        for name in OVERALL_SCORES[judged.head]
    ]
    rows += [
        _row(
            judged,
            k,
            name,
            (point.per_label[name][:, k], resampled.per_label[name][:, k]),
            level,
        )
        for k in range(judged.n_labels)
        for name in LABEL_SCORES
    ]
    return pd.DataFrame(rows).astype({"label": "string"})


def _values(judged: Judged, weights: FloatArray, *, exact: bool) -> _Values:
    """Score every resample; `exact` takes scikit-learn's areas, for the sample itself."""
    if judged.head == "softmax":
        matrices = np.tensordot(weights, matrices_by_patient(judged), axes=1)  # (R, K, K)
        counts = binary_counts(matrices)
        overall = {
            "accuracy": accuracy(matrices),
            "mcc": matthews(matrices),
            "kappa": cohen_kappa(matrices),
        }
    else:
        counts = _weighted(label_counts_by_patient(judged), weights)
        overall = _multi_label_overall(judged, counts, weights)
    areas = _exact_areas(judged) if exact else _resampled_areas(judged, weights)
    per_label = {
        "precision": precision(counts),
        "recall": recall(counts),
        "specificity": specificity(counts),
        "f1": f1(counts),
        "mcc": matthews_binary(counts),
        "kappa": cohen_kappa(_two_by_two(counts)),
        "roc_auc": areas[0],
        "average_precision": areas[1],
    }
    per_label = {name: _only_where_asked(judged, name, v) for name, v in per_label.items()}
    for name in LABEL_SCORES:
        overall[f"macro_{name}"] = _macro(judged, name, per_label[name])
    overall["balanced_accuracy"] = overall["macro_recall"]
    return _Values(overall, per_label)


def _multi_label_overall(
    judged: Judged, counts: BinaryCounts, weights: FloatArray
) -> dict[str, FloatArray]:
    """Exact match over images whose labels are all known, and the share of right single calls."""
    known = ~np.isnan(judged.labels).any(axis=1)
    exact = known & (judged.calls == (judged.labels == 1)).all(axis=1)
    patients, size = judged.patients, judged.n_patients
    n_known = weights @ np.bincount(patients[known], minlength=size).astype(np.float64)
    n_exact = weights @ np.bincount(patients[exact], minlength=size).astype(np.float64)
    right = (counts.true_positive + counts.true_negative).sum(axis=-1)
    wrong = (counts.false_positive + counts.false_negative).sum(axis=-1)
    exact_match = np.full(len(weights), np.nan)
    np.divide(n_exact, n_known, out=exact_match, where=n_known > 0)
    return {"exact_match": exact_match, "label_accuracy": right / (right + wrong)}


def _exact_areas(judged: Judged) -> tuple[FloatArray, FloatArray]:
    pairs = list(zip(judged.labels.T, judged.probabilities.T, strict=True))
    auc = np.array([[roc_auc(labels, scores) for labels, scores in pairs]])
    ap = np.array([[average_precision(labels, scores) for labels, scores in pairs]])
    return auc, ap


def _resampled_areas(judged: Judged, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    areas = [
        resampled_discrimination(labels, scores, judged.patients, weights)
        for labels, scores in zip(judged.labels.T, judged.probabilities.T, strict=True)
    ]
    auc, ap = zip(*areas, strict=True)
    return np.stack(auc, axis=1), np.stack(ap, axis=1)


def _weighted(counts: BinaryCounts, weights: FloatArray) -> BinaryCounts:
    return BinaryCounts(
        weights @ counts.true_positive,
        weights @ counts.false_positive,
        weights @ counts.false_negative,
        weights @ counts.true_negative,
    )


def _two_by_two(counts: BinaryCounts) -> FloatArray:
    """Stack counts of shape (..., K) into matrices of shape (..., K, 2, 2)."""
    absent = np.stack([counts.true_negative, counts.false_positive], axis=-1)
    present = np.stack([counts.false_negative, counts.true_positive], axis=-1)
    return np.stack([absent, present], axis=-2)


def _asked(judged: Judged, name: str) -> npt.NDArray[np.bool_]:
    """Shape (K,): for which labels a score can be asked at all."""
    asked = np.ones(judged.n_labels, dtype=bool)
    if name in NEEDS_POSITIVE:
        asked &= judged.n_positive > 0
    if name in NEEDS_NEGATIVE:
        asked &= judged.n_negative > 0
    return asked


def _only_where_asked(judged: Judged, name: str, values: FloatArray) -> FloatArray:
    return np.where(_asked(judged, name), values, np.nan)


def _macro(judged: Judged, name: str, values: FloatArray) -> FloatArray:
    asked = _asked(judged, name)
    if not asked.any():
        return np.full(len(values), np.nan)
    return np.asarray(values[:, asked].mean(axis=1), dtype=np.float64)


def _undefined_like(point: _Values) -> _Values:
    return _Values(
        {name: np.full_like(value, np.nan) for name, value in point.overall.items()},
        {name: np.full_like(value, np.nan) for name, value in point.per_label.items()},
    )


def _row(
    judged: Judged, k: int | None, name: str, values: tuple[FloatArray, FloatArray], level: float
) -> dict[str, object]:
    point, draws = values
    value = float(point[0])
    interval = percentile_interval(draws, level=level)
    defined = not np.isnan(value)
    return {
        "label": None if k is None else judged.taxonomy.label_ids[k],
        "score": name,
        "value": value,
        "low": interval.low if defined else np.nan,
        "high": interval.high if defined else np.nan,
        "defined_share": interval.defined_share if defined else 0.0,
        "n_images": judged.n_images if k is None else int(_n_known(judged)[k]),
        "n_positive": None if k is None else int(judged.n_positive[k]),
        "n_patients": judged.n_patients,
    }


def _n_known(judged: Judged) -> npt.NDArray[np.intp]:
    return judged.n_positive + judged.n_negative
