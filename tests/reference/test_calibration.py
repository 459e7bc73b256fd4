"""Calibration against scikit-learn, SciPy and closed forms."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from glomerulab.evaluation.calibration import (
    brier_score,
    calibration_line,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
    with_temperature,
)
from tests.support.eval_sets import eval_set_from, random_sigmoid, random_softmax


@pytest.fixture
def predictions_and_outcomes():
    rng = np.random.default_rng(5)
    true_logit = rng.normal(0.3, 1.2, size=3000)
    observed = (rng.random(3000) < expit(true_logit)).astype(float)
    return expit(2.0 * true_logit + 0.5), observed  # twice too extreme, and shifted


def test_slope_is_that_of_scikit_learns_logistic_regression(predictions_and_outcomes):
    predicted, observed = predictions_and_outcomes
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(predicted)[:, None], observed)
    line = calibration_line(predicted, observed)
    assert line.slope == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert line.slope == pytest.approx(0.5, abs=0.05)


def test_calibration_in_the_large_makes_mean_and_frequency_agree(predictions_and_outcomes):
    predicted, observed = predictions_and_outcomes
    root = brentq(lambda a: expit(logit(predicted) + a).mean() - observed.mean(), -5, 5)
    assert calibration_line(predicted, observed).intercept == pytest.approx(root, abs=1e-8)


def test_bins_of_equal_width_are_those_of_scikit_learn(predictions_and_outcomes):
    predicted, observed = predictions_and_outcomes
    frequency, confidence = calibration_curve(observed, predicted, n_bins=10)
    bins = reliability_bins(predicted, observed)
    assert bins.frequency == pytest.approx(frequency)
    assert bins.confidence == pytest.approx(confidence)


def test_brier_and_likelihood_are_those_of_scikit_learn():
    eval_set = random_softmax()
    names = range(4)
    assert brier_score(eval_set) == pytest.approx(
        sum(brier_score_loss(eval_set.labels[:, k], eval_set.probabilities[:, k]) for k in names)
    )
    assert negative_log_likelihood(eval_set) == pytest.approx(
        log_loss(eval_set.truth, eval_set.probabilities, labels=list(names))
    )


def test_brier_of_labels_is_the_mean_over_those_known():
    eval_set = random_sigmoid()
    known = ~np.isnan(eval_set.labels)
    expected = brier_score_loss(eval_set.labels[known], eval_set.probabilities[known])
    assert brier_score(eval_set) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_spoilt_the_probabilities_is_found(temperature):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(20000, 4)) * 1.5
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random(20000)[:, None] > honest.cumsum(axis=1)).sum(axis=1)
    eval_set = eval_set_from(np.eye(4)[truth], honest)
    spoilt = with_temperature(eval_set, 1 / temperature)
    assert fit_temperature(spoilt) == pytest.approx(temperature, rel=0.05)


def test_the_fitted_temperature_is_a_minimum_of_the_likelihood():
    eval_set = random_sigmoid(n=800)
    best = fit_temperature(eval_set)
    at_best = negative_log_likelihood(with_temperature(eval_set, best))
    for factor in (0.98, 1.02):
        assert at_best < negative_log_likelihood(with_temperature(eval_set, best * factor))
