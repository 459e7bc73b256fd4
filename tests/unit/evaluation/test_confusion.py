import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glomerulab.evaluation.confusion import (
    accuracy,
    binary_counts,
    cohen_kappa,
    confusion_matrix,
    f1,
    label_counts_by_patient,
    matrices_by_patient,
    matthews,
    matthews_binary,
    precision,
    recall,
    specificity,
)
from tests.support.judged_samples import random_sigmoid, random_softmax

MATRICES = hnp.arrays(np.float64, (3, 3), elements=st.integers(0, 50))


def test_rows_are_the_truth():
    matrix = confusion_matrix(np.array([0, 0, 2]), np.array([1, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


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


def test_a_class_nobody_has_is_not_defined_rather_than_zero():
    counts = binary_counts(np.array([[3.0, 1.0], [0.0, 0.0]]))
    assert np.isnan(recall(counts)[1])
    assert np.isnan(f1(counts)[1])
    assert specificity(counts)[1] == pytest.approx(0.75)


def test_a_class_never_called_has_no_precision_but_an_f1_of_zero():
    counts = binary_counts(np.array([[3.0, 0.0], [1.0, 0.0]]))
    assert np.isnan(precision(counts)[1])
    assert f1(counts)[1] == 0


def test_a_model_that_always_says_the_same_has_no_correlation():
    assert np.isnan(matthews(np.array([[3.0, 0.0], [1.0, 0.0]])))


def test_leading_axes_are_resamples():
    matrices = np.random.default_rng(0).integers(1, 9, size=(5, 4, 3, 3)).astype(float)
    assert accuracy(matrices).shape == (5, 4)
    assert recall(binary_counts(matrices)).shape == (5, 4, 3)
    assert cohen_kappa(matrices)[2, 1] == pytest.approx(cohen_kappa(matrices[2, 1]))


def test_matrices_of_patients_add_up_to_that_of_all():
    eval_set = random_softmax()
    expected = confusion_matrix(eval_set.truth, eval_set.decision, eval_set.n_labels)
    assert (matrices_by_patient(eval_set).sum(axis=0) == expected).all()


def test_counts_of_patients_leave_unknown_labels_out():
    eval_set = random_sigmoid()
    counts = label_counts_by_patient(eval_set)
    total = counts.true_positive + counts.false_positive
    total = total + counts.false_negative + counts.true_negative
    assert (total.sum(axis=0) == (~np.isnan(eval_set.labels)).sum(axis=0)).all()
