"""Comparison of models on shared images: McNemar's and DeLong's tests, and what a model costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, norm, rankdata

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import (
    BOOTSTRAP,
    MIN_RESAMPLES,
    mean_interval,
    rule_of_three,
    unseen_share,
)

__all__ = ["AreaComparison", "Comparison", "ModelCost", "compare_areas", "compare_models"]

FloatArray = npt.NDArray[np.float64]

HALF_WIDTH = float(norm.ppf(0.975))
"""Of a 95 % interval, in standard errors."""
DELONG = "DeLong"
"""How an interval was computed, unless DeLong's has no width."""


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Size and speed of one trained network on one machine."""

    input_size: int
    """Height and width of its images, px."""
    n_parameters: int
    n_macs: int
    """Multiply-accumulates in convolutions and matrix products, for one image."""
    train_images_per_second: float
    """Median over the epochs, loading included."""
    inference_images_per_second: float
    """Best of several batches held in memory."""
    n_bytes: int
    """Size of the weights file."""
    machine: str
    """Processor or GPU, and its threads."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracy of two models on the images that both predict."""

    first: str
    second: str
    n_images: int
    n_patients: int
    only_first_right: int
    only_second_right: int
    difference: float
    """Share correct of the first minus that of the second."""
    low: float
    high: float
    """95 % interval of the difference over patients."""
    p_mcnemar: float
    """Exact McNemar test, which assumes independent images."""
    p_holm: float
    """Corrected for the number of pairs compared."""
    interval_method: str = BOOTSTRAP


@dataclass(frozen=True, slots=True)
class AreaComparison:
    """ROC areas of one label under two models on the images that both predict."""

    first: str
    second: str
    label: str
    """Label id."""
    n_images: int
    """Images whose label is known; each of another patient."""
    difference: float
    """Area of the first minus that of the second."""
    low: float
    high: float
    """95 % interval of the difference."""
    p_delong: float
    p_holm: float
    """Corrected for the number of pairs and labels compared."""
    interval_method: str = DELONG


@dataclass(frozen=True, slots=True)
class DeLongArea:
    """ROC area with its standard error and interval."""

    auc: float
    standard_error: float
    low: float
    high: float
    interval_method: str = DELONG


@dataclass(frozen=True, slots=True)
class DeLongDifference:
    """Difference of two ROC areas on the same observations, first minus second."""

    difference: float
    standard_error: float
    z: float
    p_value: float
    """Two-sided; 1 where the scores never differ."""


def compare_models(
    models: Sequence[tuple[str, EvalSet]],
    *,
    repeats: Mapping[str, Sequence[EvalSet]] | None = None,
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Compare the accuracy of every pair of models on the images that both predict.

    Parameters
    ----------
    models : sequence of (str, EvalSet)
        At least two, with their names; of one head and taxonomy.
    repeats : mapping of str to sequence of EvalSet, optional
        The same images in the other repeats of a cross-validation, by name: differences are then
        means over the repeats. McNemar's test takes the first repeat.
    n_resamples : int, default 2000
    seed : int, default 0

    Raises
    ------
    PredictionsError
        If two models share no image, or disagree on an image's label.
    ValueError
        If there are fewer than two models.
    """
    if len(models) < 2:
        raise ValueError(f"need at least two models, got {len(models)}")
    shares = {
        name: np.mean([one.is_correct for one in (first, *(repeats or {}).get(name, ()))], axis=0)
        for name, first in models
    }
    found = [_compare_accuracy(a, b, shares, n_resamples, seed) for a, b in combinations(models, 2)]
    corrected = holm([one.p_mcnemar for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def compare_areas(models: Sequence[tuple[str, EvalSet]]) -> list[AreaComparison]:
    """Compare the ROC areas of every pair of models, label by label, by DeLong's test.

    Pairs are left out unless every shared image is of another known patient, since the test
    assumes independent observations; so are labels with fewer than two images of either outcome.

    Parameters
    ----------
    models : sequence of (str, EvalSet)
        With their names; of one head and taxonomy.

    Raises
    ------
    PredictionsError
        If two models share no image, or disagree on an image's label.
    """
    found = [one for a, b in combinations(models, 2) for one in _compare_areas(a, b)]
    corrected = holm([one.p_delong for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p value of McNemar's test from the discordant counts."""
    n_discordant = only_first + only_second
    return float(binomtest(only_first, n_discordant, 0.5).pvalue) if n_discordant else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in corrected]


def delong_area(labels: FloatArray, scores: FloatArray) -> DeLongArea:
    """Return a ROC area with DeLong's 95 % interval, clipped to 0 and 1.

    Parameters
    ----------
    labels : ndarray of float, shape (n,)
        1 or 0, at least two of each; of independent observations.
    scores : ndarray of float, shape (n,)
        Higher means more likely 1.

    Raises
    ------
    ValueError
        If there are fewer than two observations of either outcome.

    Notes
    -----
    DeLong, DeLong & Clarke-Pearson 1988; placements from mid-ranks as in Sun & Xu 2014, so the cost
    is that of sorting.
    """
    areas, covariance = _areas_and_covariance(labels, scores[None, :])
    error = float(np.sqrt(covariance[0, 0]))
    reach = HALF_WIDTH * error
    auc = float(areas[0])
    if reach == 0.0:
        found = rule_of_three(auc, _unseen(labels))
        return DeLongArea(auc, error, found.low, found.high, found.method)
    return DeLongArea(auc, error, max(0.0, auc - reach), min(1.0, auc + reach))


def delong_difference(
    labels: FloatArray, first: FloatArray, second: FloatArray
) -> DeLongDifference:
    """Test whether two models rank the same observations equally well; see `delong_area`."""
    areas, covariance = _areas_and_covariance(labels, np.stack([first, second]))
    difference = float(areas[0] - areas[1])
    contrast = np.array([1.0, -1.0])
    error = float(np.sqrt(max(0.0, contrast @ covariance @ contrast)))
    if error == 0.0:
        same = difference == 0.0
        z = 0.0 if same else float(np.copysign(np.inf, difference))
        return DeLongDifference(difference, 0.0, z, 1.0 if same else 0.0)
    z = difference / error
    return DeLongDifference(difference, error, z, float(2.0 * norm.sf(abs(z))))


def _compare_accuracy(
    first: tuple[str, EvalSet],
    second: tuple[str, EvalSet],
    shares: Mapping[str, FloatArray],
    n_resamples: int,
    seed: int,
) -> Comparison:
    (name_a, a), (name_b, b) = first, second
    in_a, in_b = _shared_rows(a, b, f"{name_a} and {name_b}")
    right_a, right_b = a.is_correct[in_a], b.is_correct[in_b]
    patients = a.patients[in_a]
    gain = shares[name_a][in_a] - shares[name_b][in_b]
    interval = mean_interval(gain, patients, bounds=(-1.0, 1.0), n_resamples=n_resamples, seed=seed)
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p_value = mcnemar_exact(only_a, only_b)
    return Comparison(
        first=name_a,
        second=name_b,
        n_images=len(in_a),
        n_patients=len(np.unique(patients)),
        only_first_right=only_a,
        only_second_right=only_b,
        difference=float(gain.mean()),
        low=interval.low,
        high=interval.high,
        p_mcnemar=p_value,
        p_holm=p_value,
        interval_method=interval.method,
    )


def _compare_areas(first: tuple[str, EvalSet], second: tuple[str, EvalSet]) -> list[AreaComparison]:
    (name_a, a), (name_b, b) = first, second
    in_a, in_b = _shared_rows(a, b, f"{name_a} and {name_b}")
    if not _are_independent(a, in_a):
        return []
    found = []
    for k, label in enumerate(a.taxonomy.label_ids):
        labels = a.labels[in_a, k]
        known = ~np.isnan(labels)
        if min((labels == 1).sum(), (labels == 0).sum()) < 2:
            continue
        one = delong_difference(
            labels[known], a.probabilities[in_a, k][known], b.probabilities[in_b, k][known]
        )
        reach = HALF_WIDTH * one.standard_error
        low, high, method = one.difference - reach, one.difference + reach, DELONG
        if reach == 0.0:
            interval = rule_of_three(one.difference, _unseen(labels[known]), bounds=(-1.0, 1.0))
            low, high, method = interval.low, interval.high, interval.method
        found.append(
            AreaComparison(
                first=name_a,
                second=name_b,
                label=label,
                n_images=int(known.sum()),
                difference=one.difference,
                low=low,
                high=high,
                p_delong=one.p_value,
                p_holm=one.p_value,
                interval_method=method,
            )
        )
    return found


def _unseen(labels: FloatArray) -> float:
    """Return the `unseen_share` of the rarer outcome, each observation being another patient."""
    return unseen_share(min(int((labels == 1).sum()), int((labels == 0).sum())))


def _shared_rows(
    a: EvalSet, b: EvalSet, names: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the row of each shared image in either set; their labels must agree."""
    ids_a, ids_b = (one.rows["image_id"].to_numpy(dtype=str) for one in (a, b))
    shared, in_a, in_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    if len(shared) == 0:
        raise PredictionsError("the runs have no evaluated image in common", where=names)
    if a.taxonomy.label_ids != b.taxonomy.label_ids:
        raise PredictionsError("the runs have different labels", where=names)
    if not np.array_equal(a.labels[in_a], b.labels[in_b], equal_nan=True):
        differs = (a.labels[in_a] != b.labels[in_b]) & ~np.isnan(a.labels[in_a])
        first = shared[np.flatnonzero(differs.any(axis=1))[:1]]
        named = f"image {str(first[0])!r}" if len(first) else "an image that only one run labels"
        raise PredictionsError(f"the runs carry different labels for {named}", where=names)
    return in_a, in_b


def _are_independent(eval_set: EvalSet, rows: npt.NDArray[np.intp]) -> bool:
    """Return whether each image is of another known patient."""
    if "patient_id" not in eval_set.rows:
        return False
    patients = eval_set.rows["patient_id"].iloc[rows]
    return bool(patients.notna().all() and patients.is_unique)


def _areas_and_covariance(labels: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Areas (M,) and their covariance (M, M) of the scores (M, n) of M models."""
    positive = labels == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if min(n_positive, n_negative) < 2:
        raise ValueError(
            f"need at least two of either outcome, got {n_positive} positive and "
            f"{n_negative} negative"
        )
    among_all = rankdata(scores, axis=1)
    # For each positive the share of negatives below it, and for each negative the reverse.
    below = (among_all[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative
    above = 1.0 - (among_all[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive
    areas = below.mean(axis=1)
    covariance = np.cov(below) / n_positive + np.cov(above) / n_negative
    return areas, np.atleast_2d(covariance)
