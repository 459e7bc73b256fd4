import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from glomerulab.evaluation.calibration import (
    brier_score,
    calibration_line,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    reliability_curve,
    top_confidence,
    with_temperature,
)
from tests.support.eval_sets import eval_set_from, random_sigmoid, random_softmax

PREDICTED = np.array([0.05, 0.15, 0.15, 0.95, 0.95])
OBSERVED = np.array([0.0, 0.0, 1.0, 1.0, 0.0])


def test_hand_computed_bins_of_equal_width():
    bins = reliability_bins(PREDICTED, OBSERVED)
    assert bins.confidence == pytest.approx([0.05, 0.15, 0.95])
    assert bins.frequency == pytest.approx([0.0, 0.5, 0.5])
    assert bins.count.tolist() == [1, 2, 2]
    assert expected_calibration_error(bins) == pytest.approx((0.05 + 2 * 0.35 + 2 * 0.45) / 5)


def test_bins_of_equal_mass_hold_the_same_number():
    rng = np.random.default_rng(0)
    bins = reliability_bins(rng.beta(8, 1, 1000), np.ones(1000), binning="equal-mass")
    assert bins.count.tolist() == [100] * 10


def test_the_edges_fall_into_the_first_and_last_bin():
    bins = reliability_bins(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert bins.count.tolist() == [1, 1]
    assert expected_calibration_error(bins) == 0


def test_bins_of_no_images_are_rejected():
    with pytest.raises(ValueError, match="got 10 and 0"):
        reliability_bins(np.array([]), np.array([]))


def test_perfect_and_worst_brier_scores():
    assert brier_score(eval_set_from(np.eye(4), np.eye(4))) == 0
    assert brier_score(eval_set_from(np.eye(4), np.roll(np.eye(4), 1, axis=1))) == 2
    half = [[0.5] * 4]
    assert brier_score(eval_set_from([[1, 0, np.nan, 0]], half, head="sigmoid")) == 0.25


def test_confidence_is_that_of_the_decision():
    probability, outcome = top_confidence(
        eval_set_from(np.eye(4)[[0, 1]], [[0.7, 0.1, 0.1, 0.1], [0.6, 0.4, 0, 0]])
    )
    assert probability.tolist() == [0.7, 0.6]
    assert outcome.tolist() == [1.0, 0.0]


def test_a_calibration_line_needs_both_outcomes():
    line = calibration_line(np.array([0.2, 0.8]), np.array([1.0, 1.0]))
    assert np.isnan(line.slope)
    assert np.isnan(line.intercept)


def test_separated_outcomes_have_no_slope():
    line = calibration_line(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert np.isnan(line.slope)


def test_certain_probabilities_do_not_break_the_line():
    predicted = np.array([0.0, 0.0, 1.0, 1.0, 0.5, 0.5])
    line = calibration_line(predicted, np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]))
    assert np.isfinite(line.slope)


def test_probabilities_far_too_high_have_a_level_that_makes_their_sum_right():
    # Newton's full step goes too far here; the likelihood has a maximum all the same.
    predicted, observed = np.full(100, 0.9997), np.repeat([0.0, 1.0], [30, 70])
    predicted[::2] = 0.99
    line = calibration_line(predicted, observed)
    assert expit(logit(predicted) + line.intercept).sum() == pytest.approx(70.0)
    assert line.intercept < -3


@given(
    seed=st.integers(0, 10_000),
    centre=st.floats(-8.0, 8.0),
    spread=st.floats(0.3, 8.0),
    tilt=st.floats(0.2, 2.0),
)
def test_a_line_is_found_wherever_scikit_learn_finds_one(seed, centre, spread, tilt):
    rng = np.random.default_rng(seed)
    predicted = expit(rng.normal(centre, spread, 80)).clip(1e-9, 1 - 1e-9)
    observed = np.append((rng.random(78) < expit(tilt * rng.normal(size=78))), [True, False]) * 1.0
    line = calibration_line(predicted, observed)
    x = logit(predicted)
    assume(
        min(x[observed == 1]) < max(x[observed == 0])
        and min(x[observed == 0]) < max(x[observed == 1])
    )
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000, solver="newton-cholesky")
    peer.fit(x[:, None], observed)
    assert line.slope == pytest.approx(float(peer.coef_[0, 0]), rel=1e-4, abs=1e-6)
    assert expit(x + line.intercept).sum() == pytest.approx(observed.sum(), abs=1e-6)


@pytest.mark.parametrize(
    "eval_set", [random_softmax(), random_sigmoid()], ids=["softmax", "sigmoid"]
)
def test_no_call_changes(eval_set):
    for temperature in (0.3, 1.0, 5.0):
        assert (with_temperature(eval_set, temperature).calls == eval_set.calls).all()


def test_a_temperature_of_one_changes_nothing():
    eval_set = random_softmax()
    assert with_temperature(eval_set, 1.0).probabilities == pytest.approx(eval_set.probabilities)


def test_a_high_temperature_flattens_and_keeps_the_sum():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[0.97, 0.01, 0.01, 0.01]])
    heated = with_temperature(eval_set, 50.0).probabilities
    assert heated.sum() == pytest.approx(1.0)
    assert heated.max() < 0.3


def test_certainty_stays_finite():
    eval_set = eval_set_from(np.eye(4), np.eye(4))
    assert np.isfinite(with_temperature(eval_set, 2.0).probabilities).all()
    assert 0.009 < fit_temperature(eval_set) < 100.1


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        with_temperature(random_softmax(), 0)


def test_without_a_wrong_answer_confidence_stops_at_laplaces_estimate():
    rng = np.random.default_rng(0)
    truth = np.eye(4)[rng.integers(4, size=36)]
    eval_set = eval_set_from(truth, 0.2 + 0.2 * truth)  # always right, never sure: 0.4 each
    scaled = with_temperature(eval_set, fit_temperature(eval_set)).probabilities
    assert scaled.max(axis=1).mean() == pytest.approx(37 / 38, abs=1e-3)


@pytest.mark.parametrize(("n", "n_bins"), [(3, 2), (20, 2), (57, 5), (5000, 10)])
def test_a_diagram_of_few_images_has_few_bins_of_equal_count_with_intervals(n, n_bins):
    rng = np.random.default_rng(n)
    probability = rng.uniform(0.2, 1.0, n)
    curve = reliability_curve(probability, (rng.random(n) < probability).astype(float))
    assert len(curve.bins.count) == n_bins
    assert np.ptp(curve.bins.count) <= 1
    assert (curve.low <= curve.bins.frequency).all()
    assert (curve.high >= curve.bins.frequency).all()
    assert len(curve.smooth) == (0 if n < 20 else 101)
    if n == 5000:
        assert np.abs(curve.smooth[20:-20] - curve.grid[20:-20]).max() < 0.05
