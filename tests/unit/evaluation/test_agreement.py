import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glomerulab.evaluation.agreement import group_agreement, pair_agreement, pair_matrices


def _alone(n: int) -> np.ndarray:
    return np.arange(n)


@settings(max_examples=50)
@given(st.integers(2, 30), st.integers(2, 5), st.integers(2, 4), st.integers(0, 10**6))
def test_agreement_does_not_depend_on_who_is_called_first(
    n_images: int, n_raters: int, n_categories: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(n_categories, size=(n_images, n_raters)).astype(float)
    ratings[rng.random(ratings.shape) < 0.3] = np.nan
    found = group_agreement(ratings, _alone(n_images), n_categories=n_categories)
    turned = group_agreement(
        ratings[:, rng.permutation(n_raters)], _alone(n_images), n_categories=n_categories
    )
    for name in ("percent", "fleiss", "ac1"):
        value, other = getattr(found, name)[0], getattr(turned, name)[0]
        np.testing.assert_allclose(value, other, atol=1e-12)
        assert np.isnan(value) or value <= 1 + 1e-12


def test_perfect_agreement_is_one_and_one_category_throughout_defines_no_kappa() -> None:
    same = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    found = group_agreement(same, _alone(3), n_categories=2)
    assert (found.percent[0], found.fleiss[0], found.ac1[0]) == pytest.approx((1, 1, 1))
    only_one = group_agreement(np.zeros((7, 3)), _alone(7), n_categories=2)
    assert np.isnan(only_one.fleiss[0])
    assert (only_one.percent[0], only_one.ac1[0]) == (1.0, 1.0)
    pair = pair_agreement(np.zeros(7), np.zeros(7), _alone(7), n_categories=2)
    assert np.isnan(pair.cohen[0])


def test_a_rare_lesion_fools_kappa_and_not_ac1() -> None:
    # Feinstein and Cicchetti's paradox: 118 of 125 alike, prevalence very high.
    first = np.repeat([1.0, 1.0, 0.0, 0.0], [118, 5, 2, 0])
    second = np.repeat([1.0, 0.0, 1.0, 0.0], [118, 5, 2, 0])
    found = pair_agreement(first, second, _alone(125), n_categories=2)
    assert found.percent[0] == pytest.approx(118 / 125)
    assert found.cohen[0] == pytest.approx(-0.0234, abs=1e-3)
    assert found.ac1[0] == pytest.approx(0.9408, abs=1e-3)


def test_weights_count_a_group_as_often_as_it_was_drawn(rng: np.random.Generator) -> None:
    ratings = rng.integers(2, size=(40, 3)).astype(float)
    ratings[rng.random(ratings.shape) < 0.2] = np.nan
    groups = np.sort(rng.integers(6, size=40))
    groups = np.unique(groups, return_inverse=True)[1]
    drawn = np.array([0, 0, 2, 3])
    weights = np.bincount(drawn, minlength=groups.max() + 1)[None].astype(float)
    repeated = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
    weighted = group_agreement(ratings, groups, n_categories=2, weights=weights)
    unweighted = group_agreement(ratings[repeated], groups[repeated], n_categories=2)
    assert weighted.fleiss == pytest.approx(unweighted.fleiss)
    assert weighted.ac1 == pytest.approx(unweighted.ac1)
    pairs = pair_agreement(ratings[:, 0], ratings[:, 1], groups, n_categories=2, weights=weights)
    expected = pair_agreement(
        ratings[repeated, 0], ratings[repeated, 1], groups[repeated], n_categories=2
    )
    assert pairs.cohen == pytest.approx(expected.cohen)


def test_images_that_only_one_has_rated_are_no_evidence_of_a_pair() -> None:
    first = np.array([1.0, 0.0, 1.0, np.nan, 0.0])
    second = np.array([1.0, 1.0, np.nan, 1.0, 0.0])
    matrices = pair_matrices(first, second, np.array([0, 0, 0, 1, 1]), n_categories=2)
    assert matrices.tolist() == [[[0, 1], [0, 1]], [[1, 0], [0, 0]]]
    seen = np.array([0, 1, 4])
    found = pair_agreement(first, second, _alone(5), n_categories=2)
    alone = pair_agreement(first[seen], second[seen], _alone(3), n_categories=2)
    assert (found.cohen, found.ac1, found.percent) == (alone.cohen, alone.ac1, alone.percent)


def test_agreement_without_ratings_is_not_defined() -> None:
    found = group_agreement(np.full((3, 2), np.nan), _alone(3), n_categories=2)
    assert np.isnan([found.percent[0], found.fleiss[0], found.ac1[0]]).all()


def test_an_invalid_rating_is_rejected() -> None:
    with pytest.raises(ValueError, match="from 0 to 1 or NaN, got 2"):
        group_agreement(np.array([[0.0, 2.0]]), _alone(1), n_categories=2)
    with pytest.raises(ValueError, match="at least 2"):
        group_agreement(np.array([[0.0, 0.0]]), _alone(1), n_categories=1)
    with pytest.raises(ValueError, match=r"shape \(2, n_raters\), got \(1, 2\)"):
        group_agreement(np.array([[0.0, 0.0]]), _alone(2), n_categories=2)
