"""The table of scores with their patient-clustered bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import (
    MIN_RESAMPLES,
    patient_weights,
    percentile_interval,
    unseen_share,
)
from glomerulab.evaluation.metrics import (
    BinaryCounts,
    accuracy,
    average_precision,
    binary_counts,
    cohen_kappa,
    f1,
    label_counts_by_patient,
    matrices_by_patient,
    matthews,
    matthews_binary,
    precision,
    recall,
    resampled_discrimination,
    roc_auc,
    specificity,
)

__all__ = ["OVERALL_SCORES", "point_scores", "score_table"]

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
NEEDS_PROBABILITIES = {"roc_auc", "average_precision"}
NEEDS_NEGATIVE = {"specificity", "mcc", "kappa", "roc_auc", "average_precision"}


@dataclass(frozen=True)
class _Values:
    """Scores of R resamples: overall by name (R,), per label by name (R, K)."""

    overall: dict[str, FloatArray]
    per_label: dict[str, FloatArray]


def score_table(
    eval_set: EvalSet,
    *,
    repeats: Sequence[EvalSet] = (),
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute every score with its 95 % interval.

    Parameters
    ----------
    repeats : sequence of EvalSet, default ()
        The same images with the predictions of the other repeats of a cross-validation: every
        score, and every resample of it, is then the mean over the repeats.
    n_resamples : int, default 2000
    seed : int, default 0

    Returns
    -------
    DataFrame
        Columns ``label`` (id; empty for all together), ``score``, ``value``, ``low``, ``high``,
        ``defined_share`` (of the resamples), ``n_images``, ``n_positive``, ``n_patients``,
        ``interval_method``. NaN means "not defined": the label is absent or never called, or too
        few patients carry it.

    Notes
    -----
    A macro score is the mean over the labels that occur among the evaluated images; it is not
    defined where one of its terms is not. With one patient no interval is defined. Where every
    resample gives the same score, the interval is by the rule of three over the patients that the
    score rests on: for recall those with the label, for areas the fewer of those with and without.
    """
    sets = (eval_set, *repeats)
    point = _mean_values(sets, np.ones((1, eval_set.n_patients)), exact=True)
    if eval_set.n_patients > 1:
        weights = patient_weights(eval_set.n_patients, n_resamples=n_resamples, seed=seed)
        resampled = _mean_values(sets, weights, exact=False)
    else:
        resampled = _undefined_like(point)
    rows = [
        _row(eval_set, None, name, (point.overall[name], resampled.overall[name]))
        for name in OVERALL_SCORES[eval_set.head]
    ]
    rows += [
        _row(
            eval_set,
            k,
            name,
            (point.per_label[name][:, k], resampled.per_label[name][:, k]),
        )
        for k in range(eval_set.n_labels)
        for name in LABEL_SCORES
    ]
    return pd.DataFrame(rows).astype({"label": "string", "interval_method": "string"})


def point_scores(eval_set: EvalSet) -> dict[str, float]:
    """Return the scores of all labels together, without intervals, by name."""
    found = _values(eval_set, np.ones((1, eval_set.n_patients)), exact=True).overall
    return {name: float(found[name][0]) for name in OVERALL_SCORES[eval_set.head]}


def _mean_values(sets: Sequence[EvalSet], weights: FloatArray, *, exact: bool) -> _Values:
    first, *others = [_values(one, weights, exact=exact) for one in sets]
    if not others:
        return first
    return _Values(
        {
            name: np.mean([v, *(o.overall[name] for o in others)], axis=0)
            for name, v in first.overall.items()
        },
        {
            name: np.mean([v, *(o.per_label[name] for o in others)], axis=0)
            for name, v in first.per_label.items()
        },
    )


def _values(eval_set: EvalSet, weights: FloatArray, *, exact: bool) -> _Values:
    """Score every resample; `exact` takes scikit-learn's areas, for the sample itself."""
    if eval_set.head == "softmax":
        matrices = np.tensordot(weights, matrices_by_patient(eval_set), axes=1)  # (R, K, K)
        counts = binary_counts(matrices)
        overall = {
            "accuracy": accuracy(matrices),
            "mcc": matthews(matrices),
            "kappa": cohen_kappa(matrices),
        }
    else:
        counts = _weighted(label_counts_by_patient(eval_set), weights)
        overall = _multi_label_overall(eval_set, counts, weights)
    areas = _exact_areas(eval_set) if exact else _resampled_areas(eval_set, weights)
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
    per_label = {name: _only_where_defined(eval_set, name, v) for name, v in per_label.items()}
    for name in LABEL_SCORES:
        overall[f"macro_{name}"] = _macro(eval_set, name, per_label[name])
    overall["balanced_accuracy"] = overall["macro_recall"]
    return _Values(overall, per_label)


def _multi_label_overall(
    eval_set: EvalSet, counts: BinaryCounts, weights: FloatArray
) -> dict[str, FloatArray]:
    """Exact match over images whose labels are all known, and accuracy over single labels."""
    known = ~np.isnan(eval_set.labels).any(axis=1)
    exact = known & (eval_set.calls == (eval_set.labels == 1)).all(axis=1)
    patients, size = eval_set.patients, eval_set.n_patients
    n_known = weights @ np.bincount(patients[known], minlength=size).astype(np.float64)
    n_exact = weights @ np.bincount(patients[exact], minlength=size).astype(np.float64)
    right = (counts.true_positive + counts.true_negative).sum(axis=-1)
    wrong = (counts.false_positive + counts.false_negative).sum(axis=-1)
    exact_match = np.full(len(weights), np.nan)
    np.divide(n_exact, n_known, out=exact_match, where=n_known > 0)
    return {"exact_match": exact_match, "label_accuracy": right / (right + wrong)}


def _exact_areas(eval_set: EvalSet) -> tuple[FloatArray, FloatArray]:
    pairs = list(zip(eval_set.labels.T, eval_set.probabilities.T, strict=True))
    auc = np.array([[roc_auc(labels, scores) for labels, scores in pairs]])
    ap = np.array([[average_precision(labels, scores) for labels, scores in pairs]])
    return auc, ap


def _resampled_areas(eval_set: EvalSet, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    areas = [
        resampled_discrimination(labels, scores, eval_set.patients, weights)
        for labels, scores in zip(eval_set.labels.T, eval_set.probabilities.T, strict=True)
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


def _is_defined(eval_set: EvalSet, name: str) -> npt.NDArray[np.bool_]:
    """Shape (K,): labels for which a score is defined at all."""
    defined = np.ones(eval_set.n_labels, dtype=bool)
    if name in NEEDS_POSITIVE:
        defined &= eval_set.n_positive > 0
    if name in NEEDS_NEGATIVE:
        defined &= eval_set.n_negative > 0
    if name in NEEDS_PROBABILITIES:
        defined &= eval_set.has_probabilities
    return defined


def _only_where_defined(eval_set: EvalSet, name: str, values: FloatArray) -> FloatArray:
    return np.where(_is_defined(eval_set, name), values, np.nan)


def _macro(eval_set: EvalSet, name: str, values: FloatArray) -> FloatArray:
    defined = _is_defined(eval_set, name)
    if not defined.any():
        return np.full(len(values), np.nan)
    return np.asarray(values[:, defined].mean(axis=1), dtype=np.float64)


def _undefined_like(point: _Values) -> _Values:
    return _Values(
        {name: np.full_like(value, np.nan) for name, value in point.overall.items()},
        {name: np.full_like(value, np.nan) for name, value in point.per_label.items()},
    )


def _unseen(eval_set: EvalSet, k: int | None, name: str) -> float:
    """Return the `unseen_share` of the patients that a score rests on."""
    single = name.removeprefix("macro_")
    if k is None and (name.startswith("macro_") or name == "balanced_accuracy"):
        single = "recall" if name == "balanced_accuracy" else single
        defined = np.flatnonzero(_is_defined(eval_set, single))
        shares = [_unseen(eval_set, int(one), single) for one in defined]
        return float(np.mean(shares)) if shares else 1.0
    if k is None:
        counted = ~np.isnan(eval_set.labels).any(axis=1) | (name != "exact_match")
        return unseen_share(len(np.unique(eval_set.patients[counted])))
    present, absent, called = (
        len(np.unique(eval_set.patients[rows]))
        for rows in (
            eval_set.labels[:, k] == 1,
            eval_set.labels[:, k] == 0,
            eval_set.calls[:, k] & ~np.isnan(eval_set.labels[:, k]),
        )
    )
    by_score = {"recall": present, "f1": present, "precision": called, "specificity": absent}
    return unseen_share(by_score.get(name, min(present, absent)))


def _row(
    eval_set: EvalSet, k: int | None, name: str, values: tuple[FloatArray, FloatArray]
) -> dict[str, object]:
    point, draws = values
    value = float(point[0])
    correlates = name.removeprefix("macro_") in {"mcc", "kappa"}
    interval = percentile_interval(
        draws,
        unseen=_unseen(eval_set, k, name),
        bounds=(-1.0, 1.0) if correlates else (0.0, 1.0),
    )
    defined = not np.isnan(value)
    has_interval = defined and not np.isnan(interval.low)
    return {
        "label": None if k is None else eval_set.taxonomy.label_ids[k],
        "score": name,
        "value": value,
        "low": interval.low if defined else np.nan,
        "high": interval.high if defined else np.nan,
        "defined_share": interval.defined_share if defined else 0.0,
        "n_images": eval_set.n_images if k is None else int(_n_known(eval_set)[k]),
        "n_positive": None if k is None else int(eval_set.n_positive[k]),
        "n_patients": eval_set.n_patients,
        "interval_method": interval.method if has_interval else None,
    }


def _n_known(eval_set: EvalSet) -> npt.NDArray[np.intp]:
    return eval_set.n_positive + eval_set.n_negative
