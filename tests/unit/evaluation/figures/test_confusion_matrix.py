import numpy as np
import pytest

from glomerulab.evaluation.figures.confusion_matrix import draw_confusion_matrix, draw_label_counts


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_every_cell_shows_count_and_share_of_the_row():
    (axes,) = draw_confusion_matrix(np.array([[9.0, 1.0], [2.0, 2.0]]), ["A", "B"]).axes
    assert _texts(axes) == ["9\n90.0 %", "1\n10.0 %", "2\n50.0 %", "2\n50.0 %"]


def test_an_absent_class_has_no_share():
    (axes,) = draw_confusion_matrix(np.array([[1.0, 0.0], [0.0, 0.0]]), ["A", "B"]).axes
    assert _texts(axes)[2:] == ["0\n–", "0\n–"]


def test_long_names_break_at_spaces():
    names = ["Mesangial proliferation", "B"]
    (axes,) = draw_confusion_matrix(np.eye(2), names).axes
    assert axes.get_xticklabels()[0].get_text() == "Mesangial\nproliferation"


def test_a_wrong_number_of_names_is_an_error():
    with pytest.raises(ValueError, match="3 by 3"):
        draw_confusion_matrix(np.eye(2), ["A", "B", "C"])


def test_each_label_has_its_own_table():
    figure = draw_label_counts(np.ones((3, 2, 2)), ["A", "B", "C"])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["A", "B", "C", ""]
