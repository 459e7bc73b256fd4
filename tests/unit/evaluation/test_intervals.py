import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.evaluation.intervals import (
    RULE_OF_THREE,
    mean_interval,
    patient_weights,
    percentile_interval,
    rule_of_three,
    unseen_share,
)


def test_every_resample_draws_as_many_patients_as_there_are():
    weights = patient_weights(17, n_resamples=2000, seed=0)
    assert weights.shape == (2000, 17)
    assert (weights.sum(axis=1) == 17).all()
    assert weights.mean() == pytest.approx(1.0)
    assert (weights == weights.round()).all()


def test_the_same_seed_draws_the_same():
    first, again = (patient_weights(5, n_resamples=2000, seed=3) for _ in range(2))
    other = patient_weights(5, n_resamples=2000, seed=4)
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(("n_patients", "n_resamples"), [(0, 2000), (5, 1999)])
def test_too_little_to_resample_is_refused(n_patients, n_resamples):
    with pytest.raises(ValueError, match="must be at least"):
        patient_weights(n_patients, n_resamples=n_resamples, seed=0)


def test_the_interval_is_the_middle_share():
    interval = percentile_interval(np.arange(1001) / 1000.0, unseen=0.5)
    assert interval.low == pytest.approx(0.025)
    assert interval.high == pytest.approx(0.975)
    assert interval.defined_share == 1.0


def test_undefined_resamples_are_left_out_and_counted():
    values = np.concatenate([np.linspace(0, 1, 900), np.full(100, np.nan)])
    interval = percentile_interval(values, unseen=0.5)
    assert interval.defined_share == pytest.approx(0.9)
    assert interval.low == pytest.approx(0.025)


def test_too_few_defined_resamples_give_no_interval():
    values = np.concatenate([np.linspace(0, 1, 700), np.full(300, np.nan)])
    assert np.isnan(percentile_interval(values, unseen=0.5).low)


def test_an_impossible_level_is_refused():
    with pytest.raises(ValueError, match="level"):
        percentile_interval(np.zeros(3), unseen=0.5, level=95)


@pytest.mark.parametrize(("value", "low", "high"), [(0.0, 0.0, 0.6), (1.0, 0.4, 1.0)])
def test_a_share_that_never_varies_has_the_interval_of_the_rule_of_three(value, low, high):
    interval = percentile_interval(np.full(2000, value), unseen=unseen_share(5))
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == RULE_OF_THREE


def test_rounding_is_no_width():
    values = np.array([1.0, 1.0 - 1e-15] * 1000)
    assert percentile_interval(values, unseen=unseen_share(30)).low == pytest.approx(0.9)


@given(
    value=st.floats(-1.0, 1.0),
    n_patients=st.integers(2, 500),
)
def test_no_interval_is_a_point_and_all_stay_within_bounds(value, n_patients):
    interval = rule_of_three(value, unseen_share(n_patients), bounds=(-1.0, 1.0))
    assert -1.0 - 1e-12 <= interval.low <= value + 1e-12
    assert value - 1e-12 <= interval.high <= 1.0 + 1e-12
    assert interval.high - interval.low == pytest.approx(2 * unseen_share(n_patients))


def test_a_mean_over_patients_that_are_alike_has_width():
    values, patients = np.tile([1.0, 0.0], 6), np.repeat(np.arange(6), 2)
    interval = mean_interval(values, patients)
    assert (interval.low, interval.high) == pytest.approx((0.25, 0.75))
