"""ROC curves of each class against the rest, as Fig. 11 of the paper, and precision-recall."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.figures.language import Say, english
from glomerulab.evaluation.figures.style import (
    COLOURS,
    GREY,
    LINE_STYLES,
    new_figure,
    plain_axes,
)
from glomerulab.evaluation.metrics import precision_recall_points, roc_points

__all__ = ["AreaText", "draw_precision_recall", "draw_roc"]


@dataclass(frozen=True, slots=True)
class AreaText:
    """What the legend says of one class: the area and its interval, as text."""

    name: str
    area: str


def draw_roc(eval_set: EvalSet, texts: Sequence[AreaText], *, say: Say = english) -> Figure:
    """Draw one ROC curve per label; a label without one says so in the legend.

    Parameters
    ----------
    judged : Judged
    texts : sequence of AreaText
        One per label, in the order of the taxonomy.
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 5.0)
    axes = _square(
        figure, say("false positive rate (1 − specificity)"), say("true positive rate (recall)")
    )
    axes.plot(
        [0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (1, 2)), label=say("chance: 0.5")
    )
    for k, text in enumerate(texts):
        curve = roc_points(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            axes.plot([], [], " ", label=f"{text.name}: {say('not defined')}")
            continue
        axes.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            label=f"{text.name}: {text.area}",
            color=COLOURS[k % len(COLOURS)],
            linestyle=LINE_STYLES[k % len(LINE_STYLES)],
            linewidth=2.0,
        )
    axes.legend(fontsize=9, loc="lower right", frameon=True, framealpha=0.9, title=say("AUC"))
    return figure


def draw_precision_recall(
    eval_set: EvalSet, texts: Sequence[AreaText], *, say: Say = english
) -> Figure:
    """Draw one precision-recall curve per label, as steps.

    Parameters
    ----------
    judged : Judged
    texts : sequence of AreaText
        One per label, in the order of the taxonomy.
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 5.0)
    axes = _square(figure, say("recall"), say("precision"))
    for k, text in enumerate(texts):
        curve = precision_recall_points(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            axes.plot([], [], " ", label=f"{text.name}: {say('not defined')}")
            continue
        axes.step(
            curve.recall,
            curve.precision,
            where="pre",
            label=f"{text.name}: {text.area}",
            color=COLOURS[k % len(COLOURS)],
            linestyle=LINE_STYLES[k % len(LINE_STYLES)],
            linewidth=2.0,
        )
    axes.legend(
        fontsize=9, loc="lower left", frameon=True, framealpha=0.9, title=say("average precision")
    )
    return figure


def _square(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = plain_axes(figure.subplots(), x_label=x_label, y_label=y_label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return axes
