"""Accuracy and loss by epoch, as Fig. 9 of the paper."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glomerulab.evaluation.figures.language import Say, english
from glomerulab.evaluation.figures.style import COLOURS, GREY, new_figure, plain_axes

__all__ = ["draw_learning_curves"]

PARTS = (("train", "training", "-"), ("validation", "validation", "--"))
MAX_EPOCHS_WITH_MARKERS = 30


def draw_learning_curves(history: pd.DataFrame, *, say: Say = english) -> Figure:
    """Draw accuracy and loss of training and validation by epoch.

    Parameters
    ----------
    history : DataFrame
        Columns ``epoch`` and any of ``train_accuracy, validation_accuracy, train_loss,
        validation_loss``; what is missing is not drawn.
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_measure(upper, history, "accuracy", words=("Accuracy", "share right"), say=say)
    _draw_measure(lower, history, "loss", words=("Loss", "loss"), say=say)
    if f"{PARTS[0][0]}_accuracy" in history:
        upper.set_ylim(0.0, 1.02)
    lower.set_ylim(bottom=0.0)
    upper.set_xlabel("")
    _mark_lowest_loss(lower, history, say)
    for axes in (upper, lower):
        if axes.lines:
            axes.legend(frameon=False, fontsize=9)
    return figure


def _draw_measure(
    axes: Axes, history: pd.DataFrame, measure: str, *, words: tuple[str, str], say: Say
) -> None:
    title, y_label = map(say, words)
    plain_axes(axes, title=title, x_label=say("epoch"), y_label=y_label)
    marker = "o" if len(history) <= MAX_EPOCHS_WITH_MARKERS else None
    for (part, name, style), colour in zip(PARTS, COLOURS, strict=False):
        column = f"{part}_{measure}"
        if column in history and history[column].notna().any():
            axes.plot(
                history["epoch"],
                history[column],
                style,
                color=colour,
                label=say(name),
                linewidth=1.8,
                marker=marker,
                markersize=3.5,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_lowest_loss(axes: Axes, history: pd.DataFrame, say: Say) -> None:
    column = "validation_loss"
    if column not in history or not history[column].notna().any():
        return
    best = float(history["epoch"].iloc[int(np.nanargmin(history[column].to_numpy()))])
    label = say("lowest validation loss: epoch {epoch}").format(epoch=int(best))
    axes.axvline(best, color=GREY, linewidth=1.2, linestyle=":", label=label)
