import numpy as np

from glomerulab.evaluation.figures.roc import AreaText, draw_precision_recall, draw_roc
from tests.support.eval_sets import eval_set_from, random_softmax

TEXTS = [AreaText(name, "0.9") for name in "ABCD"]


def _legend(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_every_class_has_a_curve_with_its_area():
    figure = draw_roc(random_softmax(), TEXTS)
    assert _legend(figure) == ["chance: 0.5", "A: 0.9", "B: 0.9", "C: 0.9", "D: 0.9"]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 5


def test_an_absent_class_says_so_instead_of_a_curve():
    eval_set = random_softmax()
    kept = eval_set.truth != 2
    eval_set = eval_set_from(eval_set.labels[kept], eval_set.probabilities[kept])
    assert "C: not defined" in _legend(draw_roc(eval_set, TEXTS))
    assert "C: not defined" in _legend(draw_precision_recall(eval_set, TEXTS))


def test_a_perfect_model_reaches_the_corner():
    line = draw_roc(eval_set_from(np.eye(4), np.eye(4)), TEXTS).axes[0].lines[1]
    assert (0.0, 1.0) in set(zip(line.get_xdata(), line.get_ydata(), strict=True))
