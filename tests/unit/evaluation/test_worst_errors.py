import numpy as np
import pytest

from glomerulab.evaluation.worst_errors import worst_errors
from tests.support.judged_samples import judged_from


def test_the_most_convinced_wrong_answer_comes_first():
    probabilities = [[0.6, 0.4, 0, 0], [0.05, 0.95, 0, 0], [0.3, 0.7, 0, 0]]
    errors = worst_errors(judged_from(np.eye(4)[[1, 0, 1]], probabilities))
    assert [(error.image_id, error.confidence) for error in errors] == [("i1", 0.95), ("i0", 0.6)]
    assert (errors[0].true_label, errors[0].called) == ("Normal", "Mesangial proliferation")
    assert errors[0].label_id == "mspgn"  # what was called


def test_no_error_no_gallery():
    assert worst_errors(judged_from(np.eye(4), np.eye(4))) == []


def test_a_missed_label_counts_by_how_surely_it_was_denied():
    labels = [[0, 1, 0, 1], [0, 1, 0, np.nan]]
    probabilities = [[0.1, 0.9, 0.2, 0.02], [0.1, 0.4, 0.1, 0.99]]
    errors = worst_errors(judged_from(labels, probabilities, head="sigmoid"))
    assert [error.image_id for error in errors] == ["i0", "i1"]
    assert errors[0].confidence == pytest.approx(0.98)
    assert errors[0].true_label == "Mesangial proliferation + Crescent"
    assert errors[1].confidence == pytest.approx(0.6)  # the unknown label is no error
    assert [error.label_id for error in errors] == ["cgn", "mspgn"]  # what was missed


def test_no_more_are_shown_than_asked():
    wrong = np.roll(np.eye(4), 1, axis=1)
    assert len(worst_errors(judged_from(np.eye(4), wrong), n_most=3)) == 3
