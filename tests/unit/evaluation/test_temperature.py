import numpy as np
import pytest

from glomerulab.evaluation.temperature import fit_temperature, with_temperature
from tests.support.judged_samples import judged_from, random_sigmoid, random_softmax


@pytest.mark.parametrize("judged", [random_softmax(), random_sigmoid()], ids=["softmax", "sigmoid"])
def test_no_call_changes(eval_set):
    for temperature in (0.3, 1.0, 5.0):
        assert (with_temperature(eval_set, temperature).calls == eval_set.calls).all()


def test_a_temperature_of_one_changes_nothing():
    eval_set = random_softmax()
    assert with_temperature(eval_set, 1.0).probabilities == pytest.approx(eval_set.probabilities)


def test_heat_makes_even_and_keeps_the_sum():
    eval_set = judged_from([[1, 0, 0, 0]], [[0.97, 0.01, 0.01, 0.01]])
    heated = with_temperature(eval_set, 50.0).probabilities
    assert heated.sum() == pytest.approx(1.0)
    assert heated.max() < 0.3


def test_certainty_stays_finite():
    eval_set = judged_from(np.eye(4), np.eye(4))
    assert np.isfinite(with_temperature(eval_set, 2.0).probabilities).all()
    assert 0.009 < fit_temperature(eval_set) < 100.1


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        with_temperature(random_softmax(), 0)


def test_without_a_wrong_answer_confidence_stops_at_laplaces_estimate():
    rng = np.random.default_rng(0)
    truth = np.eye(4)[rng.integers(4, size=36)]
    eval_set = judged_from(truth, 0.2 + 0.2 * truth)  # always right, never sure: 0.4 each
    scaled = with_temperature(eval_set, fit_temperature(eval_set)).probabilities
    assert scaled.max(axis=1).mean() == pytest.approx(37 / 38, abs=1e-3)
