import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix

from glomerulab.evaluation.metrics import (
    accuracy,
    average_precision,
    binary_counts,
    cohen_kappa,
    decision_curve,
    f1,
    label_counts_by_patient,
    matrices_by_patient,
    matthews,
    matthews_binary,
    precision,
    precision_recall_points,
    recall,
    resampled_discrimination,
    roc_auc,
    roc_points,
    specificity,
)
from tests.support.eval_sets import random_sigmoid, random_softmax

MATRICES = hnp.arrays(np.float64, (3, 3), elements=st.integers(0, 50))


def test_hand_computed_two_classes():
    matrix = np.array([[50.0, 10.0], [5.0, 35.0]])  # tp of class 0: 50, fn 10, fp 5, tn 35
    counts = binary_counts(matrix)
    assert accuracy(matrix) == pytest.approx(0.85)
    assert precision(counts)[0] == pytest.approx(50 / 55)
    assert recall(counts)[0] == pytest.approx(50 / 60)
    assert specificity(counts)[0] == pytest.approx(35 / 40)
    assert f1(counts)[0] == pytest.approx(100 / 115)
    assert cohen_kappa(matrix) == pytest.approx((0.85 - 0.51) / 0.49)
    assert matthews(matrix) == pytest.approx((50 * 35 - 10 * 5) / np.sqrt(60 * 40 * 55 * 45))


def test_the_correlation_for_k_classes_is_the_binary_one_for_two():
    matrix = np.array([[50.0, 10.0], [5.0, 35.0]])
    assert matthews_binary(binary_counts(matrix)) == pytest.approx([float(matthews(matrix))] * 2)


@given(MATRICES)
def test_scores_are_nan_or_within_their_range(matrix):
    counts = binary_counts(matrix)
    for score in (precision, recall, specificity, f1):
        values = score(counts)
        assert (np.isnan(values) | ((values >= 0) & (values <= 1))).all()
    for score in (matthews, cohen_kappa):
        value = score(matrix)
        assert np.isnan(value) or -1 - 1e-12 <= value <= 1 + 1e-12


@given(MATRICES)
def test_counts_of_every_class_add_up(matrix):
    counts = binary_counts(matrix)
    total = counts.true_positive + counts.false_positive
    total = total + counts.false_negative + counts.true_negative
    assert (total == matrix.sum()).all()


def test_scores_of_an_absent_class_are_not_defined():
    counts = binary_counts(np.array([[3.0, 1.0], [0.0, 0.0]]))
    assert np.isnan(recall(counts)[1])
    assert np.isnan(f1(counts)[1])
    assert specificity(counts)[1] == pytest.approx(0.75)


def test_a_class_never_called_has_no_precision_but_an_f1_of_zero():
    counts = binary_counts(np.array([[3.0, 0.0], [1.0, 0.0]]))
    assert np.isnan(precision(counts)[1])
    assert f1(counts)[1] == 0


def test_a_model_with_one_answer_has_no_correlation():
    assert np.isnan(matthews(np.array([[3.0, 0.0], [1.0, 0.0]])))


def test_leading_axes_are_resamples():
    matrices = np.random.default_rng(0).integers(1, 9, size=(5, 4, 3, 3)).astype(float)
    assert accuracy(matrices).shape == (5, 4)
    assert recall(binary_counts(matrices)).shape == (5, 4, 3)
    assert cohen_kappa(matrices)[2, 1] == pytest.approx(cohen_kappa(matrices[2, 1]))


def test_matrices_of_patients_add_up_to_that_of_all():
    eval_set = random_softmax()
    expected = confusion_matrix(eval_set.truth, eval_set.decision)
    assert (matrices_by_patient(eval_set).sum(axis=0) == expected).all()


def test_counts_of_patients_leave_unknown_labels_out():
    eval_set = random_sigmoid()
    counts = label_counts_by_patient(eval_set)
    total = counts.true_positive + counts.false_positive
    total = total + counts.false_negative + counts.true_negative
    assert (total.sum(axis=0) == (~np.isnan(eval_set.labels)).sum(axis=0)).all()


LABELS = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.1])


def test_hand_counted_area():
    # of 9 pairs: 0.9 and 0.8 win 3 each; 0.6 loses to 0.7, ties 0.6, beats 0.1
    assert roc_auc(LABELS, SCORES) == pytest.approx((3 + 3 + 1.5) / 9)


def test_one_outcome_only_is_not_defined():
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


OUTCOMES = np.array([1.0, 1.0, 0.0, 0.0, 0.0, np.nan])
PROBABILITIES = np.array([0.9, 0.3, 0.6, 0.2, 0.1, 0.9])


def test_hand_computed_net_benefit_at_one_half():
    curve = decision_curve(OUTCOMES, PROBABILITIES)
    (index,) = np.flatnonzero(np.isclose(curve.threshold, 0.5))
    assert curve.model[index] == pytest.approx(1 / 5 - 1 / 5 * 1.0)  # one right, one wrong
    assert curve.treat_all[index] == pytest.approx(2 / 5 - 3 / 5)


def test_hand_computed_net_benefit_at_one_quarter():
    curve = decision_curve(OUTCOMES, PROBABILITIES)
    (index,) = np.flatnonzero(np.isclose(curve.threshold, 0.25))
    assert curve.model[index] == pytest.approx(2 / 5 - 1 / 5 / 3)


def test_a_perfect_model_gains_the_prevalence_everywhere():
    labels = OUTCOMES[:5]
    curve = decision_curve(labels, labels)
    assert curve.model == pytest.approx(np.full(99, 0.4))


def test_treating_all_gains_nothing_at_the_prevalence():
    curve = decision_curve(np.repeat([1.0, 0.0], [2, 3]), np.full(5, 0.4))
    (index,) = np.flatnonzero(np.isclose(curve.threshold, 0.4))
    assert curve.treat_all[index] == pytest.approx(0.0, abs=1e-12)


def test_one_outcome_only_has_no_curve():
    assert decision_curve(np.ones(3), PROBABILITIES[:3]) is None
