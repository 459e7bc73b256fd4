"""Reliability: what the model said against what came true."""

import numpy as np
from matplotlib.figure import Figure

from glomerulab.evaluation.calibration import ReliabilityBins
from glomerulab.evaluation.figures.language import Say, english
from glomerulab.evaluation.figures.style import COLOURS, GREY, MARKERS, new_figure, plain_axes

__all__ = ["draw_reliability"]


def draw_reliability(curves: dict[str, ReliabilityBins], *, say: Say = english) -> Figure:
    """Draw reliability curves above the count of probabilities in each bin.

    Parameters
    ----------
    curves : dict of str to ReliabilityBins
        By name, such as "as trained" and "after temperature scaling"; a phrase of `say`.
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 5.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    plain_axes(upper, y_label=say("share that came true"))
    plain_axes(lower, x_label=say("probability given by the model"), y_label=say("count"))
    upper.plot(
        [0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (1, 2)), label=say("perfect")
    )
    for k, (name, bins) in enumerate(curves.items()):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        upper.plot(bins.confidence, bins.frequency, marker=marker, color=colour, label=say(name))
        lower.vlines(bins.confidence, 0, bins.count, color=colour, linewidth=4, alpha=0.7)
    upper.set_xlim(-0.02, 1.02)
    upper.set_ylim(-0.02, 1.02)
    upper.set_yticks(np.linspace(0, 1, 6))
    upper.legend(fontsize=9, loc="lower right", frameon=False)
    return figure
