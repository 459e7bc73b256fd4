import numpy as np
import pandas as pd

from glomerulab.evaluation.calibration import reliability_curve
from glomerulab.evaluation.figures.curves import (
    AreaText,
    draw_decision_curves,
    draw_learning_curves,
    draw_precision_recall,
    draw_reliability,
    draw_risk_coverage,
    draw_roc,
)
from glomerulab.evaluation.uncertainty import risk_coverage
from tests.support.eval_sets import eval_set_from, random_softmax

TEXTS = [AreaText(name, "0.9") for name in "ABCD"]


def _legend(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_every_class_has_a_curve_with_its_area():
    figure = draw_roc(random_softmax(), TEXTS)
    assert _legend(figure) == ["chance: 0.5", "A: 0.9", "B: 0.9", "C: 0.9", "D: 0.9"]
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}) == 5


def test_an_absent_class_is_marked_not_defined_instead_of_a_curve():
    eval_set = random_softmax()
    kept = eval_set.truth != 2
    eval_set = eval_set_from(eval_set.labels[kept], eval_set.probabilities[kept])
    assert "C: not defined" in _legend(draw_roc(eval_set, TEXTS))
    assert "C: not defined" in _legend(draw_precision_recall(eval_set, TEXTS))


def test_a_perfect_model_reaches_the_corner():
    line = draw_roc(eval_set_from(np.eye(4), np.eye(4)), TEXTS).axes[0].lines[1]
    assert (0.0, 1.0) in set(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_every_curve_is_drawn_above_its_counts():
    curve = reliability_curve(np.array([0.22, 0.28, 0.9]), np.array([0.0, 1.0, 1.0]))
    figure = draw_reliability({"uncalibrated": curve, "scaled": curve})
    upper, lower = figure.axes
    assert _legend(figure) == ["perfect", "uncalibrated", "scaled"]
    assert list(upper.containers[0].lines[0].get_ydata()) == [0.5, 1.0]
    assert len(lower.collections) == 2


def test_every_class_has_axes_with_model_all_and_none():
    figure = draw_decision_curves(random_softmax(), list("ABCD"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list("ABCD")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "treat all",
        "treat none",
        "model",
    ]


def test_an_absent_class_has_axes_without_a_curve():
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


def test_the_error_without_referral_is_named_below_the_curve():
    figure = draw_risk_coverage(risk_coverage(random_softmax()))
    assert _legend(figure) == ["no referral"]
    assert not figure.axes[0].texts


def test_the_ticks_of_one_epoch_are_whole():
    figure = draw_learning_curves(HISTORY.iloc[:1])
    figure.draw_without_rendering()
    ticks = figure.axes[1].get_xticks()
    assert (ticks == ticks.round()).all()


HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [1.0, 0.5, 0.2],
        "validation_loss": [1.1, 0.6, 0.8],
        "train_accuracy": [0.4, 0.7, 0.9],
        "validation_accuracy": [0.4, 0.6, 0.6],
    }
)


def test_both_parts_are_drawn_by_epoch():
    figure = draw_learning_curves(HISTORY)
    upper, lower = figure.axes
    assert _legend(figure)[:2] == ["training", "validation"]
    assert list(upper.lines[0].get_ydata()) == [0.4, 0.7, 0.9]
    assert list(lower.lines[1].get_xdata()) == [1, 2, 3]


def test_the_epoch_of_lowest_validation_loss_is_named():
    assert _legend(draw_learning_curves(HISTORY))[-1] == "lowest validation loss: epoch 2"


def test_a_run_without_validation_still_has_curves():
    columns = ["validation_loss", "validation_accuracy"]
    figure = draw_learning_curves(HISTORY.assign(**dict.fromkeys(columns, np.nan)))
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]
    assert _legend(figure) == ["training"]


def test_a_history_of_losses_only_is_drawn():
    figure = draw_learning_curves(HISTORY[["epoch", "train_loss"]])
    assert [len(axes.lines) for axes in figure.axes] == [0, 1]
    assert _legend(figure) == ["training"]
