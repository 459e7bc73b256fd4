import numpy as np
import pytest

from glomerulab.evaluation.decision_curve import decision_curve

LABELS = np.array([1.0, 1.0, 0.0, 0.0, 0.0, np.nan])
SAID = np.array([0.9, 0.3, 0.6, 0.2, 0.1, 0.9])


def test_hand_computed_net_benefit_at_one_half():
    curve = decision_curve(LABELS, SAID)
    (place,) = np.flatnonzero(np.isclose(curve.threshold, 0.5))
    assert curve.model[place] == pytest.approx(1 / 5 - 1 / 5 * 1.0)  # one right, one wrong
    assert curve.treat_all[place] == pytest.approx(2 / 5 - 3 / 5)


def test_hand_computed_net_benefit_at_one_quarter():
    curve = decision_curve(LABELS, SAID)
    (place,) = np.flatnonzero(np.isclose(curve.threshold, 0.25))
    assert curve.model[place] == pytest.approx(2 / 5 - 1 / 5 / 3)


def test_a_perfect_model_gains_the_prevalence_everywhere():
    labels = LABELS[:5]
    curve = decision_curve(labels, labels)
    assert curve.model == pytest.approx(np.full(99, 0.4))


def test_treating_all_gains_nothing_at_the_prevalence():
    curve = decision_curve(np.repeat([1.0, 0.0], [2, 3]), np.full(5, 0.4))
    (place,) = np.flatnonzero(np.isclose(curve.threshold, 0.4))
    assert curve.treat_all[place] == pytest.approx(0.0, abs=1e-12)


def test_one_kind_only_has_no_curve():
    assert decision_curve(np.ones(3), SAID[:3]) is None
