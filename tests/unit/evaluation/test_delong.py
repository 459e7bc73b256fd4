import numpy as np
import pytest

from glomerulab.evaluation.delong import delong_area, delong_difference

LABELS = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
SCORES = np.array([0.1, 0.4, 0.6, 0.5, 0.8, 0.9])


def test_a_model_against_itself_does_not_differ():
    found = delong_difference(LABELS, SCORES, SCORES)
    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_swapping_the_models_turns_the_sign():
    other = SCORES[::-1]
    there, back = (delong_difference(LABELS, *pair) for pair in ((SCORES, other), (other, SCORES)))
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)


def test_a_perfect_order_has_no_error():
    area = delong_area(LABELS, LABELS)
    assert (area.auc, area.standard_error, area.low, area.high) == (1.0, 0.0, 1.0, 1.0)


def test_the_interval_stays_within_zero_and_one():
    area = delong_area(LABELS, SCORES)
    assert 0.0 <= area.low < area.auc < area.high <= 1.0


def test_a_single_positive_is_refused():
    with pytest.raises(ValueError, match="got 1 positive, 3 negative"):
        delong_area(np.array([0.0, 0.0, 0.0, 1.0]), SCORES[:4])
