import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.evaluation.discrimination import (
    average_precision,
    precision_recall_points,
    resampled_discrimination,
    roc_auc,
    roc_points,
)

LABELS = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.1])


def test_hand_counted_area():
    # of 9 pairs: 0.9 and 0.8 win 3 each; 0.6 loses to 0.7, ties 0.6, beats 0.1
    assert roc_auc(LABELS, SCORES) == pytest.approx((3 + 3 + 1.5) / 9)


def test_one_kind_only_is_not_defined():
    ones = np.ones(4)
    assert np.isnan(roc_auc(ones, SCORES[:4]))
    assert np.isnan(average_precision(1 - ones, SCORES[:4]))
    assert roc_points(ones, SCORES[:4]) is None
    assert precision_recall_points(ones, SCORES[:4]) is None


def test_unknown_labels_are_left_out():
    labels = np.append(LABELS, np.nan)
    scores = np.append(SCORES, 0.99)
    assert roc_auc(labels, scores) == roc_auc(LABELS, SCORES)
    assert average_precision(labels, scores) == average_precision(LABELS, SCORES)


def test_curves_start_and_end_where_they_must():
    roc = roc_points(LABELS, SCORES)
    assert (roc.false_positive_rate[0], roc.true_positive_rate[0]) == (0, 0)
    assert (roc.false_positive_rate[-1], roc.true_positive_rate[-1]) == (1, 1)
    curve = precision_recall_points(LABELS, SCORES)
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.precision[-1] == pytest.approx(0.5)


def test_a_resample_with_one_kind_only_is_not_defined():
    weights = np.array([[2.0, 0.0], [1.0, 1.0]])
    patients = np.array([0, 0, 1, 0, 1, 1])
    auc, ap = resampled_discrimination(LABELS, SCORES, patients, weights)
    assert np.isnan(auc[0])
    assert np.isnan(ap[0])
    assert auc[1] == pytest.approx(roc_auc(LABELS, SCORES))


@given(st.integers(0, 2**32 - 1))
def test_a_resample_is_the_sample_with_its_images_repeated(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=40).astype(float)
    scores = rng.integers(8, size=40) / 8  # many ties
    patients = rng.integers(6, size=40)
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=1).astype(float)
    repeated = np.repeat(np.arange(40), weights[0][patients].astype(int))
    auc, ap = resampled_discrimination(labels, scores, patients, weights)
    expected = roc_auc(labels[repeated], scores[repeated])
    assert auc[0] == pytest.approx(expected, nan_ok=True)
    expected = average_precision(labels[repeated], scores[repeated])
    assert ap[0] == pytest.approx(expected, nan_ok=True)
