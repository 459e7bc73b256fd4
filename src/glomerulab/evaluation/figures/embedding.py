"""t-SNE maps, as Fig. 8 of the paper: a model's features, and the images of a stain check."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
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
from glomerulab.i18n.catalogue import Language, translate

__all__ = ["draw_embedding", "draw_intensity_spread", "draw_stain_map"]

FloatArray = npt.NDArray[np.float64]

MAX_NAMED = 7


def draw_embedding(
    points: FloatArray,
    groups: npt.NDArray[np.intp],
    names: Sequence[str],
    is_wrong: npt.NDArray[np.bool_],
    *,
    language: Language = "en",
) -> Figure:
    """Draw one point per image, coloured by true class; wrongly called ones are ringed.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
    groups : ndarray of int, shape (n,)
        Class of each image, an index of `names`.
    is_wrong : ndarray of bool, shape (n,)
    language : {"en", "zh"}, default "en"
    """
    figure = new_figure(5.6, 5.0)
    axes = figure.subplots()
    for k, name in enumerate(names):
        inside = groups == k
        if not inside.any():
            continue
        axes.scatter(
            points[inside, 0],
            points[inside, 1],
            s=26,
            color=COLOURS[k % len(COLOURS)],
            marker=MARKERS[k % len(MARKERS)],
            linewidths=0,
            alpha=0.8,
            label=f"{name} ({int(inside.sum())})",
        )
    if is_wrong.any():
        axes.scatter(
            points[is_wrong, 0],
            points[is_wrong, 1],
            s=80,
            facecolors="none",
            edgecolors="#1F2933",
            linewidths=1.0,
            label=translate("figure|misclassified ({count})", language, count=int(is_wrong.sum())),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#D9DFE5")
    figure.legend(fontsize=9, loc="outside lower center", ncols=2, frameon=False)
    return figure


def draw_stain_map(
    embedding: StainEmbedding,
    sources: npt.NDArray[np.object_],
    *,
    title: str,
    column: str,
    language: Language = "en",
) -> Figure:
    """Draw one map of a stain check, coloured by source.

    Parameters
    ----------
    sources : ndarray of object, shape (n,)
        Value of `column` for each image; the `MAX_NAMED` most frequent have a colour.
    title : str
        Followed by the map's trustworthiness.
    column : str
        Title of the legend.
    language : {"en", "zh"}, default "en"
    """
    figure = new_figure(4.4, 4.6)
    axes = figure.subplots()
    points = embedding.points
    named = [str(name) for name in pd.Series(sources).value_counts().index[:MAX_NAMED]]
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
            label=translate("figure|others", language),
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
    trust = translate(
        "figure|{title} (trustworthiness {value})",
        language,
        title=title,
        value=f"{embedding.trustworthiness:.2f}",
    )
    plain_axes(axes, title=trust)
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


def draw_intensity_spread(table: pd.DataFrame, *, language: Language = "en") -> Figure:
    """Draw the distribution of normalised median intensity before and after, by stain.

    `table` has one row per image and the columns ``stain``, ``nmi_before`` and ``nmi_after``.
    """
    figure = new_figure(4.6, 3.6)
    axes = figure.subplots()
    unknown = translate("figure|no stain given", language)
    groups = table.assign(stain=table["stain"].fillna(unknown)).groupby("stain")
    when = {"before": "figure|{stain} before", "after": "figure|{stain} after"}
    for k, (stain, rows) in enumerate(groups):
        for name, style in zip(when, reversed(LINE_STYLES[:2]), strict=True):
            values = np.sort(rows[f"nmi_{name}"].dropna().to_numpy(dtype=np.float64))
            share = (np.arange(len(values)) + 1.0) / max(len(values), 1)
            colour = COLOURS[k % len(COLOURS)]
            label = translate(when[name], language, stain=stain)
            axes.step(values, share, where="post", color=colour, ls=style, label=label)
    plain_axes(
        axes,
        x_label=translate("figure|Median / 95th percentile of tissue intensity", language),
        y_label=translate("figure|Share of images", language),
    )
    figure.legend(fontsize=9, frameon=False, loc="outside lower center", ncols=2)
    return figure
