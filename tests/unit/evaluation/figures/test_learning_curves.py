import numpy as np
import pandas as pd

from glomerulab.evaluation.figures.learning_curves import draw_learning_curves

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [1.0, 0.5, 0.2],
        "validation_loss": [1.1, 0.6, 0.8],
        "train_accuracy": [0.4, 0.7, 0.9],
        "validation_accuracy": [0.4, 0.6, 0.6],
    }
)


def _labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_both_parts_are_drawn_by_epoch():
    upper, lower = draw_learning_curves(HISTORY).axes
    assert _labels(upper) == ["training", "validation"]
    assert list(upper.lines[0].get_ydata()) == [0.4, 0.7, 0.9]
    assert list(lower.lines[1].get_xdata()) == [1, 2, 3]


def test_the_epoch_of_lowest_validation_loss_is_named():
    _, lower = draw_learning_curves(HISTORY).axes
    assert _labels(lower)[-1] == "lowest validation loss: epoch 2"


def test_a_run_without_validation_still_has_curves():
    columns = ["validation_loss", "validation_accuracy"]
    upper, lower = draw_learning_curves(HISTORY.assign(**dict.fromkeys(columns, np.nan))).axes
    assert _labels(upper) == ["training"]
    assert _labels(lower) == ["training"]


def test_a_history_of_losses_only_is_drawn():
    upper, lower = draw_learning_curves(HISTORY[["epoch", "train_loss"]]).axes
    assert upper.get_legend() is None
    assert _labels(lower) == ["training"]
