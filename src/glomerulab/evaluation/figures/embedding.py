"""The model's features on a plane, coloured by what people said, as Fig. 8 of the paper."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from glomerulab.evaluation.figures.language import Say, english
from glomerulab.evaluation.figures.style import COLOURS, MARKERS, new_figure

__all__ = ["draw_embedding"]


def draw_embedding(
    places: npt.NDArray[np.float64],
    groups: npt.NDArray[np.intp],
    names: Sequence[str],
    is_wrong: npt.NDArray[np.bool_],
    *,
    say: Say = english,
) -> Figure:
    """Draw one point per image; wrongly called ones are ringed.

    Parameters
    ----------
    places : ndarray of float, shape (n, 2)
    groups : ndarray of int, shape (n,)
        What each image is, a place in `names`.
    names : sequence of str
    is_wrong : ndarray of bool, shape (n,)
    say : Say, default english
        Gives each phrase in the language of the figure.

    Returns
    -------
    Figure
    """
    figure = new_figure(5.6, 5.0)
    axes = figure.subplots()
    for k, name in enumerate(names):
        inside = groups == k
        if not inside.any():
            continue
        axes.scatter(
            places[inside, 0],
            places[inside, 1],
            s=26,
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            linewidths=0,
            alpha=0.8,
            label=f"{name} ({int(inside.sum())})",
        )
    if is_wrong.any():
        axes.scatter(
            places[is_wrong, 0],
            places[is_wrong, 1],
            s=80,
            facecolors="none",
            edgecolors="#1F2933",
            linewidths=1.0,
            label=say("called wrong ({count})").format(count=int(is_wrong.sum())),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#D9DFE5")
    figure.legend(fontsize=9, loc="outside lower center", ncols=2, frameon=False)
    return figure
