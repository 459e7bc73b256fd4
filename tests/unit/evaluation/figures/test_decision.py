import numpy as np

from glomerulab.evaluation.figures.decision import draw_decision_curves, draw_risk_coverage
from glomerulab.evaluation.uncertainty import risk_coverage
from tests.support.eval_sets import eval_set_from, random_softmax


def test_every_class_has_axes_with_model_all_and_none():
    figure = draw_decision_curves(random_softmax(), list("ABCD"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("ABCD")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["all", "none", "model"]


def test_an_absent_class_says_so():
    eval_set = random_softmax()
    kept = eval_set.truth != 0
    figure = draw_decision_curves(
        eval_set_from(eval_set.labels[kept], eval_set.probabilities[kept]), list("ABCD")
    )
    assert figure.axes[0].texts[0].get_text() == "not defined"
    assert figure.legends


def test_a_single_class_draws_no_curve():
    figure = draw_decision_curves(eval_set_from([[1, 0, 0, 0]], [[1, 0, 0, 0]]), list("ABCD"))
    assert figure.legends == []


def test_the_risk_curve_ends_at_the_error_of_the_model():
    eval_set = random_softmax()
    line = draw_risk_coverage(risk_coverage(eval_set)).axes[0].lines[0]
    assert line.get_ydata()[-1] == np.mean(eval_set.truth != eval_set.decision)
