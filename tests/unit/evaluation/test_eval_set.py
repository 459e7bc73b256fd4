import numpy as np
import pytest

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.eval_set import eval_set_of_split
from glomerulab.taxonomy import load_taxonomy
from tests.support.eval_sets import eval_set_from

EVEN = [0.25, 0.25, 0.25, 0.25]


def test_a_softmax_set_leaves_out_images_with_two_lesions_or_unknown_labels():
    labels = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, np.nan, 0, 0]]
    eval_set = eval_set_from(labels, [EVEN] * 4)
    assert eval_set.n_images == 1
    assert eval_set.n_left_out == 3


def test_a_sigmoid_set_keeps_images_with_any_known_label():
    labels = [[1, 0, 0, 0], [0, 1, np.nan, 0], [np.nan] * 4]
    eval_set = eval_set_from(labels, [EVEN] * 3, head="sigmoid")
    assert eval_set.n_images == 2
    assert eval_set.n_positive.tolist() == [1, 1, 0, 0]
    assert eval_set.n_negative.tolist() == [1, 1, 1, 2]


def test_images_without_a_patient_count_as_patients_of_their_own():
    eval_set = eval_set_from(np.eye(4), [EVEN] * 4, [7, None, 7, None])
    assert eval_set.n_patients == 3
    assert eval_set.n_without_patient == 2
    assert eval_set.patients[0] == eval_set.patients[2]
    assert len(set(eval_set.patients.tolist())) == 3


def test_patients_of_a_label_are_counted_once():
    eval_set = eval_set_from(np.eye(4)[[0, 0, 1]], [EVEN] * 3, [1, 1, 2])
    assert eval_set.n_patients_positive.tolist() == [1, 1, 0, 0]


def test_a_missing_part_is_an_error_that_names_those_there_are():
    eval_set = eval_set_from(np.eye(4), [EVEN] * 4)
    with pytest.raises(PredictionsError, match=r"'external'.*test"):
        eval_set_of_split(eval_set.rows, load_taxonomy("paper"), split="external")


def test_a_split_without_usable_labels_is_an_error():
    with pytest.raises(PredictionsError, match="exactly one label"):
        eval_set_from([[1, 1, 0, 0]], [EVEN])


def test_a_probability_of_one_half_is_a_call():
    eval_set = eval_set_from([[1, 0, 0, 0]], [[0.5, 0.49, 0.0, 1.0]], head="sigmoid")
    assert eval_set.calls.tolist() == [[True, False, False, True]]
