import numpy as np
import pytest

from glomerulab.evaluation.intervals import patient_weights, percentile_interval


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
    interval = percentile_interval(np.arange(1001) / 1000.0)
    assert interval.low == pytest.approx(0.025)
    assert interval.high == pytest.approx(0.975)
    assert interval.defined_share == 1.0


def test_undefined_resamples_are_left_out_and_counted():
    values = np.concatenate([np.linspace(0, 1, 900), np.full(100, np.nan)])
    interval = percentile_interval(values)
    assert interval.defined_share == pytest.approx(0.9)
    assert interval.low == pytest.approx(0.025)


def test_too_few_defined_resamples_give_no_interval():
    values = np.concatenate([np.linspace(0, 1, 700), np.full(300, np.nan)])
    assert np.isnan(percentile_interval(values).low)


def test_an_impossible_level_is_refused():
    with pytest.raises(ValueError, match="level"):
        percentile_interval(np.zeros(3), level=95)
