"""Curves of a run's report: ROC (Fig. 11 of the paper), precision-recall, and others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from glomerulab.evaluation.calibration import ReliabilityCurve
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.figures.confusion_matrix import wrapped_name
from glomerulab.evaluation.figures.style import (
    COLOURS,
    GREY,
    LINE_STYLES,
    MARKERS,
    new_figure,
    plain_axes,
)
from glomerulab.evaluation.metrics import decision_curve, precision_recall_points, roc_points
from glomerulab.evaluation.uncertainty import RiskCoverage
from glomerulab.i18n.catalogue import Language, translate

__all__ = [
    "AreaText",
    "draw_decision_curves",
    "draw_learning_curves",
    "draw_precision_recall",
    "draw_reliability",
    "draw_risk_coverage",
    "draw_roc",
]

MAX_EPOCHS_WITH_MARKERS = 30


@dataclass(frozen=True, slots=True)
class AreaText:
    """Legend of one label: its name, and its area with interval."""

    name: str
    area: str


def draw_roc(eval_set: EvalSet, texts: Sequence[AreaText], *, language: Language = "en") -> Figure:
    """Draw one ROC curve per label; `texts` are in the order of the taxonomy."""
    _ = partial(translate, language=language)
    figure = new_figure(5.6, 6.2)
    axes = _square_axes(
        figure,
        _("figure|false positive rate (1 − specificity)"),
        _("figure|true positive rate (recall)"),
    )
    axes.plot(
        [0, 1],
        [0, 1],
        color=GREY,
        linewidth=1.0,
        linestyle=(0, (1, 2)),
        label=_("figure|chance: 0.5"),
    )
    for k, text in enumerate(texts):
        curve = roc_points(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            axes.plot([], [], " ", label=f"{text.name}: {_('figure|not defined')}")
            continue
        axes.plot(
            curve.false_positive_rate,
            curve.true_positive_rate,
            label=f"{text.name}: {text.area}",
            color=COLOURS[k % len(COLOURS)],
            linestyle=LINE_STYLES[k % len(LINE_STYLES)],
            linewidth=2.0,
        )
    _legend_below(figure, title="AUC")
    return figure


def draw_precision_recall(
    eval_set: EvalSet, texts: Sequence[AreaText], *, language: Language = "en"
) -> Figure:
    """Draw one precision-recall curve per label, as steps; arguments as for `draw_roc`."""
    _ = partial(translate, language=language)
    figure = new_figure(5.6, 6.2)
    axes = _square_axes(figure, _("figure|recall"), _("figure|precision"))
    for k, text in enumerate(texts):
        curve = precision_recall_points(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            axes.plot([], [], " ", label=f"{text.name}: {_('figure|not defined')}")
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
    title = _("figure|average precision")
    _legend_below(figure, title=title)
    return figure


def draw_reliability(curves: dict[str, ReliabilityCurve], *, language: Language = "en") -> Figure:
    """Draw reliability curves, by their name in the legend, above where the probabilities lie."""
    _ = partial(translate, language=language)
    figure = new_figure(5.6, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    plain_axes(upper, y_label=_("figure|observed frequency"))
    plain_axes(lower, x_label=_("figure|predicted probability"), y_label=_("figure|count"))
    upper.plot(
        [0, 1],
        [0, 1],
        color=GREY,
        linewidth=1.0,
        linestyle=(0, (1, 2)),
        label=_("figure|perfect"),
    )
    for k, (name, curve) in enumerate(curves.items()):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        bins = curve.bins
        # Side by side, since bins of the same images lie close to each other.
        places = bins.confidence + 0.006 * (k - (len(curves) - 1) / 2)
        errors = np.abs(np.stack([bins.frequency - curve.low, curve.high - bins.frequency]))
        upper.errorbar(
            places,
            bins.frequency,
            errors,
            fmt=marker,
            color=colour,
            label=name,
            markersize=5,
            elinewidth=1.2,
            capsize=2.5,
        )
        style = LINE_STYLES[k % len(LINE_STYLES)]
        upper.plot(curve.grid, curve.smooth, color=colour, linestyle=style, linewidth=1.6)
        lower.vlines(places, 0, bins.count, color=colour, linewidth=4, alpha=0.7)
    lower.set_ylim(bottom=0)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    upper.set_yticks(np.linspace(0, 1, 6))
    _legend_below(figure, axes=upper)
    return figure


def draw_decision_curves(
    eval_set: EvalSet, names: Sequence[str], *, language: Language = "en"
) -> Figure:
    """Draw the net benefit of the model, of treating all and of treating none, label by label.

    Parameters
    ----------
    eval_set : EvalSet
        With calibrated probabilities where there are any.
    names : sequence of str
        One per label, in the order of the taxonomy.
    language : {"en", "zh"}, default "en"
    """
    _ = partial(translate, language=language)
    n_columns = 2
    n_rows = -(-len(names) // n_columns)
    figure = new_figure(5.6, 2.6 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for k, (axes, name) in enumerate(zip(grid.flat, names, strict=False)):
        plain_axes(axes, title=wrapped_name(name))
        curve = decision_curve(eval_set.labels[:, k], eval_set.probabilities[:, k])
        if curve is None:
            text = _("figure|not defined")
            axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY)
            continue
        top = max(curve.treat_all[0], float(curve.model.max()), 0.01)
        axes.plot(
            curve.threshold,
            curve.treat_all,
            color=GREY,
            linestyle="--",
            label=_("figure|treat all"),
        )
        axes.axhline(0.0, color="black", linewidth=1.0, linestyle=":", label=_("figure|treat none"))
        axes.plot(
            curve.threshold, curve.model, color=COLOURS[0], linewidth=2.0, label=_("figure|model")
        )
        axes.set_ylim(-0.25 * top, 1.1 * top)
    for axes in grid[-1]:
        axes.set_xlabel(_("figure|threshold probability"), fontsize=10)
    for axes in grid[:, 0]:
        axes.set_ylabel(_("figure|net benefit"), fontsize=10)
    drawn = [axes for axes in grid.flat if axes.lines]
    if drawn:
        handles, labels = drawn[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper right", ncols=3, fontsize=9, frameon=False
        )
    return figure


def draw_risk_coverage(curve: RiskCoverage, *, language: Language = "en") -> Figure:
    """Draw the error rate of the images kept against the share that is kept."""
    _ = partial(translate, language=language)
    figure = new_figure(5.6, 3.6)
    axes = plain_axes(
        figure.subplots(),
        x_label=_("figure|coverage: share of images that are not referred"),
        y_label=_("figure|risk: share of errors among them"),
    )
    axes.step(
        curve.coverage,
        curve.risk,
        where="post",
        color=COLOURS[0],
        linestyle=LINE_STYLES[0],
        linewidth=2.0,
    )
    axes.axhline(
        curve.risk[-1], color=GREY, linewidth=1.0, linestyle=":", label=_("figure|no referral")
    )
    axes.set_xlim(0.0, 1.01)
    axes.set_ylim(0.0, max(0.05, 1.15 * float(np.max(curve.risk))))
    _legend_below(figure)
    return figure


def draw_learning_curves(history: pd.DataFrame, *, language: Language = "en") -> Figure:
    """Draw accuracy and loss by epoch, as Fig. 9 of the paper.

    Parameters
    ----------
    history : DataFrame
        Columns ``epoch`` and any of ``train_accuracy``, ``validation_accuracy``, ``train_loss``
        and ``validation_loss``; missing ones are not drawn.
    language : {"en", "zh"}, default "en"
    """
    _ = partial(translate, language=language)
    figure = new_figure(5.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    plain_axes(upper, title=_("figure|Accuracy"), y_label=_("figure|accuracy"))
    plain_axes(lower, title=_("figure|Loss"), x_label=_("figure|epoch"), y_label=_("figure|loss"))
    for axes, measure in ((upper, "accuracy"), (lower, "loss")):
        _plot_measure(axes, history, measure, language)
    if "train_accuracy" in history:
        upper.set_ylim(0.0, 1.02)
    lower.set_ylim(bottom=0.0)
    if len(history) == 1:  # or ticks would be parts of an epoch
        lower.set_xlim(history["epoch"].iloc[0] - 1, history["epoch"].iloc[0] + 1)
    if "validation_loss" in history and history["validation_loss"].notna().any():
        lowest = int(np.nanargmin(history["validation_loss"].to_numpy()))
        best = float(history["epoch"].iloc[lowest])
        label = _("figure|lowest validation loss: epoch {epoch}", epoch=int(best))
        lower.axvline(best, color=GREY, linewidth=1.2, linestyle=":", label=label)
    _legend_below(figure, axes=lower if lower.lines else upper)
    return figure


def _plot_measure(axes: Axes, history: pd.DataFrame, measure: str, language: Language) -> None:
    """Plot a measure of training and validation by epoch."""
    _ = partial(translate, language=language)
    marker = "o" if len(history) <= MAX_EPOCHS_WITH_MARKERS else None
    splits = (
        ("train", _("figure|training"), "-", COLOURS[0]),
        ("validation", _("figure|validation"), "--", COLOURS[1]),
    )
    for split, name, style, colour in splits:
        column = f"{split}_{measure}"
        if column in history and history[column].notna().any():
            axes.plot(
                history["epoch"],
                history[column],
                style,
                color=colour,
                label=name,
                linewidth=1.8,
                marker=marker,
                markersize=3.5,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend_below(figure: Figure, *, axes: Axes | None = None, title: str = "") -> None:
    """Put the legend below the axes, where it covers no curve."""
    axes = figure.axes[0] if axes is None else axes
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            title=title or None,
            loc="outside lower center",
            fontsize=9,
            title_fontsize=9,
            frameon=False,
        )


def _square_axes(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = plain_axes(figure.subplots(), x_label=x_label, y_label=y_label)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    return axes
