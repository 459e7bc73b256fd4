"""Agreement of the annotators of a study with each other, and of each with their repeats.

Third readings are left out: they are of difficult images only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.apps.annotation.records import Annotation, Labels
from glomerulab.evaluation.agreement import (
    Coefficients,
    PairCoefficients,
    group_agreement,
    pair_agreement,
    pair_matrices,
)
from glomerulab.evaluation.intervals import (
    MIN_RESAMPLES,
    Interval,
    patient_weights,
    percentile_interval,
    unseen_share,
)
from glomerulab.taxonomy import Taxonomy

EXACT_SET = "exact set"
"""In place of a label id: agreement on all labels of an image at once."""

TABLE_COLUMNS = (
    "comparison",
    "readers",
    "label",
    "score",
    "value",
    "low",
    "high",
    "defined_share",
    "n_images",
    "interval_method",
)
CONFUSION_COLUMNS = (
    "comparison",
    "readers",
    "label",
    "both",
    "first_only",
    "second_only",
    "neither",
)

FloatArray = npt.NDArray[np.float64]
Reader = tuple[str, str]
"""Login, and ``first`` or ``repeat``."""
Row = dict[str, object]


@dataclass(frozen=True)
class StudyAgreement:
    """Agreement of all annotators, of every pair, and of each with their repeats."""

    table: pd.DataFrame
    """``comparison`` (all, pair, self), ``readers``, ``label``, ``score`` (percent, fleiss, cohen,
    ac1), ``value``, ``low``, ``high``, ``defined_share``, ``n_images``, ``interval_method``. NaN:
    not defined."""
    confusion: pd.DataFrame
    """``comparison`` (pair, self), ``readers``, ``label``, and the number of images with the label
    set by ``both``, ``first_only``, ``second_only``, ``neither``."""
    resampled: str
    """Unit that the intervals resample: ``patients``, or ``images`` if any patient is unknown."""
    n_groups: int
    """Number of these units."""


def study_agreement(
    annotations: Sequence[Annotation],
    patients: Mapping[str, str | None],
    taxonomy: Taxonomy,
    *,
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> StudyAgreement:
    """Compute the agreement of a study with bootstrap intervals.

    Parameters
    ----------
    annotations : sequence of Annotation
        The latest of each item.
    patients : mapping of str to str or None
        Patient of each image of the study, by image id.

    Notes
    -----
    An unknown label is not a rating unless a label that was set excludes it. The exact set of an
    image with an unknown label is not a rating either. An interval needs at least two groups.
    """
    labelled = [one for one in annotations if one.content.skip_reason is None]
    image_ids = sorted({one.image_id for one in labelled})
    groups, resampled = _groups(image_ids, patients)
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    weights = (
        patient_weights(n_groups, n_resamples=n_resamples, seed=seed) if n_groups > 1 else None
    )
    resampling = _Resampling(groups, weights, level)
    table, confusion = [], []
    for label in (*taxonomy.label_ids, EXACT_SET):
        ratings = _ratings(labelled, image_ids, label, taxonomy)
        n_categories = 2 if label != EXACT_SET else 2 ** len(taxonomy.label_ids)
        table += _group_rows(ratings, resampling, label, n_categories)
        for comparison, readers, first, second in _pairs(ratings):
            key: Row = {"comparison": comparison, "readers": readers, "label": label}
            table += _pair_rows(key, first, second, resampling, n_categories)
            if label != EXACT_SET:
                confusion.append(key | _confusion(first, second, groups))
    return StudyAgreement(
        pd.DataFrame(table, columns=TABLE_COLUMNS),
        pd.DataFrame(confusion, columns=CONFUSION_COLUMNS),
        resampled,
        n_groups,
    )


@dataclass(frozen=True)
class _Resampling:
    """The group of each image, and how often each resample contains each group."""

    groups: npt.NDArray[np.intp]
    weights: FloatArray | None
    level: float


def _groups(
    image_ids: Sequence[str], patients: Mapping[str, str | None]
) -> tuple[npt.NDArray[np.intp], str]:
    """Return the number of each image's patient, or its own number if any patient is unknown."""
    names = [patients.get(image_id) for image_id in image_ids]
    known = all(name is not None for name in names)
    keys = np.array(names if known else list(image_ids), dtype=np.str_)
    return np.unique(keys, return_inverse=True)[1], "patients" if known else "images"


def _ratings(
    labelled: Sequence[Annotation], image_ids: Sequence[str], label: str, taxonomy: Taxonomy
) -> dict[Reader, FloatArray]:
    """Return the category that each reader gave each image, NaN where none."""
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    ratings: dict[Reader, FloatArray] = {}
    for one in labelled:
        column = ratings.setdefault((one.login, one.purpose), np.full(len(image_ids), np.nan))
        column[rows[one.image_id]] = _category(one.content.labels, label, taxonomy)
    return dict(sorted(ratings.items()))


def _category(labels: Labels, label: str, taxonomy: Taxonomy) -> float:
    label_ids = taxonomy.label_ids if label == EXACT_SET else (label,)
    implied = taxonomy.implied(labels)
    flags = [implied[label_id] for label_id in label_ids]
    if any(flag is None for flag in flags):
        return np.nan
    return float(sum(2**bit for bit, flag in enumerate(flags) if flag))


def _pairs(
    ratings: Mapping[Reader, FloatArray],
) -> Iterator[tuple[str, str, FloatArray, FloatArray]]:
    """Yield every pair of readers, and each reader with their repeats."""
    firsts = [(login, column) for (login, purpose), column in ratings.items() if purpose == "first"]
    for (one, first), (other, second) in combinations(firsts, 2):
        yield "pair", f"{one}, {other}", first, second
    for login, first in firsts:
        repeats = ratings.get((login, "repeat"))
        if repeats is not None:
            yield "self", login, first, repeats


def _group_rows(
    ratings: Mapping[Reader, FloatArray], resampling: _Resampling, label: str, n_categories: int
) -> list[Row]:
    columns = [column for (_, purpose), column in ratings.items() if purpose == "first"]
    if len(columns) < 2:
        return []
    table = np.column_stack(columns)  # (n_images, n_readers)
    point = group_agreement(table, resampling.groups, n_categories=n_categories)
    draws = point
    if resampling.weights is not None:
        draws = group_agreement(
            table, resampling.groups, n_categories=n_categories, weights=resampling.weights
        )
    is_rated = (~np.isnan(table)).sum(axis=1) >= 2
    key: Row = {"comparison": "all", "readers": f"{len(columns)} readers", "label": label}
    return [
        _row(key, name, point, draws, resampling=resampling, is_rated=is_rated)
        for name in ("percent", "fleiss", "ac1")
    ]


def _pair_rows(
    key: Row, first: FloatArray, second: FloatArray, resampling: _Resampling, n_categories: int
) -> list[Row]:
    point = pair_agreement(first, second, resampling.groups, n_categories=n_categories)
    draws = point
    if resampling.weights is not None:
        draws = pair_agreement(
            first,
            second,
            resampling.groups,
            n_categories=n_categories,
            weights=resampling.weights,
        )
    is_rated = ~(np.isnan(first) | np.isnan(second))
    return [
        _row(key, name, point, draws, resampling=resampling, is_rated=is_rated)
        for name in ("percent", "cohen", "ac1")
    ]


def _row(
    key: Row,
    score: str,
    point: Coefficients | PairCoefficients,
    draws: Coefficients | PairCoefficients,
    *,
    resampling: _Resampling,
    is_rated: npt.NDArray[np.bool_],
) -> Row:
    value = float(getattr(point, score)[0])
    interval = Interval(np.nan, np.nan, 0.0)
    if resampling.weights is not None and not np.isnan(value):
        n_groups = len(np.unique(resampling.groups[is_rated]))
        interval = percentile_interval(
            getattr(draws, score),
            unseen=unseen_share(n_groups),
            bounds=(0.0, 1.0) if score == "percent" else (-1.0, 1.0),
            level=resampling.level,
        )
    return {
        **key,
        "score": score,
        "value": value,
        "low": interval.low,
        "high": interval.high,
        "defined_share": interval.defined_share,
        "n_images": int(is_rated.sum()),
        "interval_method": interval.method,
    }


def _confusion(
    first: FloatArray, second: FloatArray, groups: npt.NDArray[np.intp]
) -> dict[str, object]:
    counts = pair_matrices(first, second, groups, n_categories=2).sum(axis=0).astype(int)
    return {
        "both": counts[1, 1],
        "first_only": counts[1, 0],
        "second_only": counts[0, 1],
        "neither": counts[0, 0],
    }
