"""Two models' ROC areas on the same images, by DeLong's test, where the images are independent."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.stats import norm

from glomerulab.evaluation.comparison import holm, shared_places
from glomerulab.evaluation.delong import delong_difference
from glomerulab.evaluation.eval_set import EvalSet

__all__ = ["AreaComparison", "compare_areas"]


@dataclass(frozen=True, slots=True)
class AreaComparison:
    """The areas of one label under two models, on the images both judged."""

    first: str
    second: str
    label: str
    """Its id."""
    n_images: int
    """Of known label; as many patients."""
    difference: float
    """Area of the first minus that of the second."""
    low: float
    high: float
    """95 % interval of the difference."""
    p_delong: float
    p_holm: float
    """The same, corrected for the number of pairs and labels compared."""


def compare_areas(models: Sequence[tuple[str, EvalSet]]) -> list[AreaComparison]:
    """Compare the ROC areas of every pair of models, label by label.

    Parameters
    ----------
    models : sequence of (str, Judged)
        Named; of one head and taxonomy.

    Returns
    -------
    list of AreaComparison
        Pairs whose shared images are not each of another known patient are left out, and so are
        labels that fewer than two of them show, or fewer than two do not.

    Raises
    ------
    PredictionsError
        If two models share no image, or disagree on an image's label.
    """
    found = [one for a, b in combinations(models, 2) for one in _compare(a, b)]
    corrected = holm([one.p_delong for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def _compare(first: tuple[str, EvalSet], second: tuple[str, EvalSet]) -> list[AreaComparison]:
    (name_a, a), (name_b, b) = first, second
    in_a, in_b = shared_places(a, b, f"{name_a} and {name_b}")
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
        reach = float(norm.ppf(0.975)) * one.standard_error
        found.append(
            AreaComparison(
                first=name_a,
                second=name_b,
                label=label,
                n_images=int(known.sum()),
                difference=one.difference,
                low=one.difference - reach,
                high=one.difference + reach,
                p_delong=one.p_value,
                p_holm=one.p_value,
            )
        )
    return found


def _are_independent(eval_set: EvalSet, places: np.ndarray) -> bool:
    """Whether each image is of another patient, and every patient is known."""
    if "patient_id" not in eval_set.rows:
        return False
    patients = eval_set.rows["patient_id"].iloc[places]
    return bool(patients.notna().all() and patients.is_unique)
