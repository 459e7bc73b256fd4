"""Figures of a stain check: maps of the images, and the spread of intensity."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glomerulab.evaluation.figures.style import (
    COLOURS,
    GREY,
    LINE_STYLES,
    MARKERS,
    new_figure,
    plain_axes,
)
from glomerulab.evaluation.stain_check import StainEmbedding

__all__ = ["embedding_figure", "spread_figure"]

MAX_NAMED = 7


def embedding_figure(
    embedding: StainEmbedding, sources: npt.NDArray[np.object_], *, title: str, column: str
) -> Figure:
    """Show one t-SNE map, coloured by source, as the paper's Fig. 8.

    Parameters
    ----------
    embedding : StainEmbedding
    sources : ndarray of object, shape (n,)
        Value of `column` for each image; the seven most frequent are told apart.
    title : str
        Before or after; the map's trustworthiness is added.
    column : str
        Named in the legend.

    Returns
    -------
    Figure
        One map of its own, so that two stand beside each other on paper and below each other on a
        telephone.
    """
    figure = new_figure(4.4, 4.6)
    named = [str(name) for name in pd.Series(sources).value_counts().index[:MAX_NAMED]]
    axes = figure.subplots()
    _scatter(axes, embedding.points, sources, named)
    plain_axes(axes, title=f"{title} (trustworthiness {embedding.trustworthiness:.2f})")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(
        *axes.get_legend_handles_labels(),
        title=column,
        loc="outside lower center",
        ncols=2,
        fontsize=9,
        title_fontsize=9,
        frameon=False,
    )
    return figure


def spread_figure(table: pd.DataFrame) -> Figure:
    """Show how widely normalised median intensity is spread before and after, per stain.

    Parameters
    ----------
    table : DataFrame
        Columns ``stain``, ``nmi_before``, ``nmi_after``; one row per image.

    Returns
    -------
    Figure
    """
    figure = new_figure(4.6, 3.6)
    axes = figure.subplots()
    groups = table.assign(stain=table["stain"].fillna("no stain given")).groupby("stain")
    for k, (stain, rows) in enumerate(groups):
        for name, style in zip(("before", "after"), reversed(LINE_STYLES[:2]), strict=True):
            values = np.sort(rows[f"nmi_{name}"].dropna().to_numpy(dtype=np.float64))
            share = (np.arange(len(values)) + 1.0) / max(len(values), 1)
            colour = COLOURS[k % len(COLOURS)]
            axes.step(values, share, where="post", color=colour, ls=style, label=f"{stain} {name}")
    plain_axes(
        axes, x_label="Median / 95th percentile of tissue intensity", y_label="Share of images"
    )
    axes.legend(fontsize=9, frameon=False)
    return figure


def _scatter(
    axes: Axes,
    points: npt.NDArray[np.float64],
    sources: npt.NDArray[np.object_],
    named: list[str],
) -> None:
    texts = np.array([str(source) for source in sources], dtype=object)
    others = ~np.isin(texts, named)
    if others.any():
        axes.scatter(
            points[others, 0],
            points[others, 1],
            s=14,
            c=GREY,
            alpha=0.5,
            marker=".",
            label="others",
        )
    for k, name in enumerate(named):
        chosen = texts == name
        axes.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=22,
            color=COLOURS[k],
            marker=MARKERS[k],
            label=name,
            linewidths=0,
        )
