"""Decision curves of each class, and how errors fall when uncertain images are referred."""

from collections.abc import Sequence

import numpy as np
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
from glomerulab.evaluation.metrics import decision_curve
from glomerulab.evaluation.uncertainty import RiskCoverage

__all__ = ["draw_decision_curves", "draw_risk_coverage"]


def draw_decision_curves(eval_set: EvalSet, names: Sequence[str], *, say: Say = english) -> Figure:
    """Draw the net benefit of each label on axes of its own, with acting on all and on none.

    Parameters
    ----------
    judged : Judged
        With calibrated probabilities where there are any.
    names : sequence of str
        One per label, in the order of the taxonomy.
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    n_columns = 2
    n_rows = -(-len(names) // n_columns)
    figure = new_figure(5.6, 2.6 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for k, (axes, name) in enumerate(zip(grid.flat, names, strict=False)):
        plain_axes(axes, title=name)
        curve = decision_curve(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            axes.text(
                0.5, 0.5, say("not defined"), transform=axes.transAxes, ha="center", color=GREY
            )
            continue
        top = max(curve.treat_all[0], float(curve.model.max()), 0.01)
        axes.plot(curve.threshold, curve.treat_all, color=GREY, linestyle="--", label=say("all"))
        axes.axhline(0.0, color="black", linewidth=1.0, linestyle=":", label=say("none"))
        axes.plot(curve.threshold, curve.model, color=COLOURS[0], linewidth=2.0, label=say("model"))
        axes.set_ylim(-0.25 * top, 1.1 * top)
    for axes in grid[-1]:
        axes.set_xlabel(say("threshold probability"), fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel(say("net benefit"), fontsize=10)
    drawn = [axes for axes in grid.flat if axes.lines]
    if drawn:
        handles, labels = drawn[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper right", ncols=3, fontsize=9, frameon=False
        )
    return figure


def draw_risk_coverage(curve: RiskCoverage, *, say: Say = english) -> Figure:
    """Draw the share of errors among the images kept, by the share that is kept.

    Parameters
    ----------
    curve : RiskCoverage
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 3.6)
    axes = plain_axes(
        figure.subplots(),
        x_label=say("share of images that the model answers (the rest is referred)"),
        y_label=say("share of those answered wrong"),
    )
    axes.step(
        curve.coverage,
        curve.risk,
        where="post",
        color=COLOURS[0],
        linestyle=LINE_STYLES[0],
        linewidth=2.0,
    )
    axes.axhline(curve.risk[-1], color=GREY, linewidth=1.0, linestyle=":")
    axes.annotate(
        say("answering all"),
        (0.0, curve.risk[-1]),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=9,
        color=GREY,
    )
    axes.set_xlim(0.0, 1.01)
    axes.set_ylim(0.0, max(0.05, 1.15 * float(np.max(curve.risk))))
    return figure
