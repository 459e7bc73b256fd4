"""Two or more models on the same images: who is right more often, and could it be chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import patient_weights, percentile_interval
from glomerulab.evaluation.risk_coverage import image_is_right

__all__ = ["Comparison", "compare_models", "holm", "mcnemar_exact", "shared_places"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One pair of models on the images both judged."""

    first: str
    second: str
    n_images: int
    n_patients: int
    only_first_right: int
    only_second_right: int
    difference: float
    """Share right of the first minus that of the second."""
    low: float
    high: float
    """95 % interval of the difference over patients."""
    p_mcnemar: float
    """Exact McNemar test, which takes images as independent."""
    p_holm: float
    """The same, corrected for the number of pairs compared."""


def compare_models(
    models: Sequence[tuple[str, EvalSet]], *, n_resamples: int = 2000, seed: int = 0
) -> list[Comparison]:
    """Compare every pair of models on the images both judged.

    Parameters
    ----------
    models : sequence of (str, Judged)
        At least two, named; of one head and taxonomy.
    n_resamples : int, default 2000
    seed : int, default 0

    Returns
    -------
    list of Comparison
        In the order of the pairs.

    Raises
    ------
    PredictionsError
        If two models share no image, or disagree on an image's label.
    ValueError
        If there are fewer than two models.
    """
    if len(models) < 2:
        raise ValueError(f"need at least two models, got {len(models)}")
    found = [_compare(a, b, n_resamples, seed) for a, b in combinations(models, 2)]
    corrected = holm([one.p_mcnemar for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p value of McNemar's test.

    Parameters
    ----------
    only_first, only_second : int
        Images that only the first, or only the second, model called right.

    Returns
    -------
    float
        1 where the models never differ.
    """
    n_different = only_first + only_second
    if n_different == 0:
        return 1.0
    return float(binomtest(only_first, n_different, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number by Holm's step-down method.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    list of float
        In the same order, at most 1.

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


def shared_places(
    a: EvalSet, b: EvalSet, where: str
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Find the images both judged, and make sure their labels agree.

    Parameters
    ----------
    a, b : Judged
    where : str
        Named in an error.

    Returns
    -------
    in_a, in_b : ndarray of int, shape (n,)
        The place of each shared image in either.

    Raises
    ------
    PredictionsError
        If the two share no image, or disagree on an image's label.
    """
    ids_a, ids_b = (one.rows["image_id"].to_numpy(dtype=str) for one in (a, b))
    shared, in_a, in_b = np.intersect1d(ids_a, ids_b, return_indices=True)
    if len(shared) == 0:
        raise PredictionsError("judged no image in common", where=where)
    if a.taxonomy.label_ids != b.taxonomy.label_ids:
        raise PredictionsError("have different labels", where=where)
    same = np.array_equal(a.labels[in_a], b.labels[in_b], equal_nan=True)
    if not same:
        differs = (a.labels[in_a] != b.labels[in_b]) & ~np.isnan(a.labels[in_a])
        first = shared[np.flatnonzero(differs.any(axis=1))[:1]]
        named = f" image {str(first[0])!r}" if len(first) else " an image known to one only"
        raise PredictionsError(f"carry different labels for{named}", where=where)
    return in_a, in_b


def _compare(
    first: tuple[str, EvalSet], second: tuple[str, EvalSet], n_resamples: int, seed: int
) -> Comparison:
    (name_a, a), (name_b, b) = first, second
    in_a, in_b = shared_places(a, b, f"{name_a} and {name_b}")
    right_a, right_b = image_is_right(a)[in_a], image_is_right(b)[in_b]
    _, patients = np.unique(a.patients[in_a], return_inverse=True)
    low, high = _difference_interval(right_a, right_b, patients, n_resamples, seed)
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p_value = mcnemar_exact(only_a, only_b)
    return Comparison(
        first=name_a,
        second=name_b,
        n_images=len(in_a),
        n_patients=int(patients.max()) + 1,
        only_first_right=only_a,
        only_second_right=only_b,
        difference=float(right_a.mean() - right_b.mean()),
        low=low,
        high=high,
        p_mcnemar=p_value,
        p_holm=p_value,
    )


def _difference_interval(
    right_a: npt.NDArray[np.bool_],
    right_b: npt.NDArray[np.bool_],
    patients: npt.NDArray[np.intp],
    n_resamples: int,
    seed: int,
) -> tuple[float, float]:
    n_patients = int(patients.max()) + 1
    if n_patients < 2:
        return float("nan"), float("nan")
    weights = patient_weights(n_patients, n_resamples=n_resamples, seed=seed)
    gain = right_a.astype(np.float64) - right_b.astype(np.float64)
    total = weights @ np.bincount(patients, weights=gain)
    size = weights @ np.bincount(patients).astype(np.float64)
    interval = percentile_interval(total / size)
    return interval.low, interval.high
