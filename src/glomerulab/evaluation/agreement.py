r"""Agreement of raters: Cohen's and Fleiss' κ, and Gwet's AC1.

Ratings are an array of shape (n_images, n_raters) of category numbers from 0, NaN where a rater
did not rate an image; each image may have raters of its own. All coefficients are functions of
sums over images; the sums of each group (patient) are kept apart, so that resampling groups costs
one matrix product.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from glomerulab.evaluation.metrics import cohen_kappa

__all__ = ["Coefficients", "PairCoefficients", "group_agreement", "pair_agreement", "pair_matrices"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coefficients:
    """Agreement of any number of raters; arrays of shape (R,), NaN where not defined."""

    percent: FloatArray
    """Share of the pairs of ratings of an image that agree, from 0 to 1."""
    fleiss: FloatArray
    """Fleiss' kappa, at most 1; not defined where all ratings are of one category."""
    ac1: FloatArray
    """Gwet's AC1, at most 1."""


@dataclass(frozen=True)
class PairCoefficients:
    """Agreement of two raters; arrays of shape (R,), NaN where not defined."""

    percent: FloatArray
    cohen: FloatArray
    ac1: FloatArray


def group_agreement(
    ratings: FloatArray,
    groups: npt.NDArray[np.intp],
    *,
    n_categories: int,
    weights: FloatArray | None = None,
) -> Coefficients:
    r"""Compute the agreement of two or more raters.

    Parameters
    ----------
    ratings : ndarray of float, shape (n_images, n_raters)
        Category numbers from 0 to `n_categories` - 1, NaN for none.
    groups : ndarray of int, shape (n_images,)
        The group (patient) of each image, from 0 to G - 1.
    n_categories : int
        At least 2.
    weights : ndarray of float, shape (R, G), optional
        How often each group occurs in each resample; by default once, R = 1.

    Raises
    ------
    ValueError
        If the shapes do not match, or a rating is not a category.

    Notes
    -----
    With :math:`r_i` ratings of image i, :math:`r_{ik}` of them category k, over the n' images of
    at least two ratings :math:`p_a = \frac{1}{n'}\sum_i\sum_k r_{ik}(r_{ik}-1)/(r_i(r_i-1))`, and
    over the n images of at least one :math:`\pi_k = \frac{1}{n}\sum_i r_{ik}/r_i`. Then
    :math:`\kappa = (p_a - p_e)/(1 - p_e)` with :math:`p_e = \sum_k \pi_k^2` for Fleiss [1]_, in
    its form for missing ratings [3]_, and :math:`p_e = \frac{1}{q-1}\sum_k \pi_k(1-\pi_k)` for AC1
    [2]_.

    References
    ----------
    .. [1] Fleiss, Psychological Bulletin 76(5):378-382, 1971.
    .. [2] Gwet, British Journal of Mathematical and Statistical Psychology 61:29-48, 2008.
    .. [3] Gwet, Handbook of Inter-Rater Reliability, 4th edition, 2014, chapters 2 and 5.
    """
    _check(ratings, groups, n_categories)
    counts = np.stack([(ratings == k).sum(axis=1) for k in range(n_categories)], axis=1)
    n_ratings = counts.sum(axis=1)
    paired, rated = n_ratings >= 2, n_ratings >= 1
    agreeing = np.zeros(len(ratings))
    pairs = n_ratings[paired] * (n_ratings[paired] - 1.0)
    agreeing[paired] = (counts[paired] * (counts[paired] - 1.0)).sum(axis=1) / pairs
    shares = counts / np.maximum(n_ratings, 1)[:, None]  # (n_images, q)
    terms = np.column_stack([paired, agreeing, rated, shares])  # (n_images, 3 + q)
    sums = _weighted(_by_group(terms, groups), weights)  # (R, 3 + q)
    observed = _share(sums[:, 1], sums[:, 0])
    prevalence = sums[:, 3:] / np.where(sums[:, 2:3] > 0, sums[:, 2:3], np.nan)  # (R, q)
    by_chance = (prevalence * (1.0 - prevalence)).sum(axis=1) / (n_categories - 1)
    return Coefficients(
        percent=observed,
        fleiss=_corrected(observed, (prevalence**2).sum(axis=1)),
        ac1=_corrected(observed, by_chance),
    )


def pair_agreement(
    first: FloatArray,
    second: FloatArray,
    groups: npt.NDArray[np.intp],
    *,
    n_categories: int,
    weights: FloatArray | None = None,
) -> PairCoefficients:
    """Compute the agreement of two raters over the images that both rated.

    `first` and `second` are columns of the ratings of `group_agreement`, shape (n_images,).

    Notes
    -----
    Cohen 1960, unweighted. Unlike Fleiss' κ, its expected agreement uses each rater's own
    category frequencies.
    """
    both = np.column_stack([first, second])
    both[np.isnan(both).any(axis=1)] = np.nan  # leave out images that only one rated
    matrices = _weighted(pair_matrices(first, second, groups, n_categories=n_categories), weights)
    coefficients = group_agreement(both, groups, n_categories=n_categories, weights=weights)
    return PairCoefficients(coefficients.percent, cohen_kappa(matrices), coefficients.ac1)


def pair_matrices(
    first: FloatArray, second: FloatArray, groups: npt.NDArray[np.intp], *, n_categories: int
) -> FloatArray:
    """Return one confusion matrix of two raters per group, shape (G, q, q); rows are the first."""
    _check(np.column_stack([first, second]), groups, n_categories)
    rated = ~(np.isnan(first) | np.isnan(second))
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    matrices = np.zeros((n_groups, n_categories, n_categories))
    cells = (groups[rated], first[rated].astype(np.intp), second[rated].astype(np.intp))
    np.add.at(matrices, cells, 1.0)
    return matrices


def _check(ratings: FloatArray, groups: npt.NDArray[np.intp], n_categories: int) -> None:
    """Check shapes and categories."""
    if n_categories < 2:
        raise ValueError(f"n_categories must be at least 2, got {n_categories}")
    if ratings.ndim != 2 or len(ratings) != len(groups):
        raise ValueError(f"ratings must have shape ({len(groups)}, n_raters), got {ratings.shape}")
    given = ratings[~np.isnan(ratings)]
    wrong = given[~np.isin(given, np.arange(n_categories))]
    if len(wrong):
        raise ValueError(f"a rating must be from 0 to {n_categories - 1} or NaN, got {wrong[0]}")


def _by_group(terms: FloatArray, groups: npt.NDArray[np.intp]) -> FloatArray:
    """Sum terms of shape (n_images, ...) within each group, to shape (G, ...)."""
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    sums = np.zeros((n_groups, *terms.shape[1:]))
    np.add.at(sums, groups, terms)
    return sums


def _weighted(sums: FloatArray, weights: FloatArray | None) -> FloatArray:
    """Sum over the groups of each resample, to shape (R, ...)."""
    if weights is None:
        return np.asarray(sums.sum(axis=0, keepdims=True), dtype=np.float64)
    return np.asarray(np.tensordot(weights, sums, axes=1), dtype=np.float64)


def _corrected(observed: FloatArray, by_chance: FloatArray) -> FloatArray:
    # With a single category 1 - p_e is 0 up to rounding.
    room = np.where(1.0 - by_chance > 1e-12, 1.0 - by_chance, np.nan)
    return np.asarray((observed - by_chance) / room, dtype=np.float64)


def _share(part: FloatArray, total: FloatArray) -> FloatArray:
    return np.asarray(part / np.where(total > 0, total, np.nan), dtype=np.float64)
