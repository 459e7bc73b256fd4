"""Confusion matrices in counts and shares of each row, as Fig. 10 of the paper."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glomerulab.evaluation.figures.style import new_figure
from glomerulab.i18n.catalogue import Language, translate

__all__ = ["draw_confusion_matrix", "draw_label_counts", "wrapped_name"]

FloatArray = npt.NDArray[np.float64]

MAX_SHORT_NAME = 14


def draw_confusion_matrix(
    matrix: FloatArray, class_names: Sequence[str], *, language: Language = "en"
) -> Figure:
    """Draw each cell's count and its share of the row, shaded by the share.

    Parameters
    ----------
    matrix : ndarray of float, shape (K, K)
        Rows are the truth, columns the decision.
    language : {"en", "zh"}, default "en"

    Raises
    ------
    ValueError
        If the number of names differs from the size of the matrix.
    """
    n_classes = len(class_names)
    if matrix.shape != (n_classes, n_classes):
        raise ValueError(f"matrix must be {n_classes} by {n_classes}, got {matrix.shape}")
    figure = new_figure(1.7 + 0.95 * n_classes, 1.1 + 0.85 * n_classes)
    shares, text = _cells(matrix)
    _draw_cells(figure.subplots(), shares, text, class_names, language=language)
    return figure


def draw_label_counts(
    matrices: FloatArray, label_names: Sequence[str], *, language: Language = "en"
) -> Figure:
    """Draw one 2 by 2 matrix per label, for a sigmoid head.

    Parameters
    ----------
    matrices : ndarray of float, shape (K, 2, 2)
        Per label: rows are absent and present in truth, columns as called.
    language : {"en", "zh"}, default "en"
    """
    n_labels = len(label_names)
    n_columns = min(n_labels, 2)
    n_rows = -(-n_labels // n_columns)
    figure = new_figure(2.7 * n_columns, 2.5 * n_rows)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in grid.flat[n_labels:]:
        axes.set_axis_off()
    presence = (translate("figure|absent", language), translate("figure|present", language))
    for axes, matrix, name in zip(grid.flat, matrices, label_names, strict=False):
        shares, text = _cells(matrix)
        _draw_cells(axes, shares, text, presence, language=language, title=name)
    return figure


def _cells(matrix: FloatArray) -> tuple[FloatArray, list[list[str]]]:
    """Return the row shares and the text of each cell."""
    of_truth = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, of_truth, out=np.full_like(matrix, np.nan), where=of_truth > 0)
    text = [
        [f"{count:.0f}\n{_percent(share)}" for count, share in zip(*rows, strict=True)]
        for rows in zip(matrix, shares, strict=True)
    ]
    return shares, text


def _draw_cells(
    axes: Axes,
    shares: FloatArray,
    text: list[list[str]],
    names: Sequence[str],
    *,
    language: Language,
    title: str = "",
) -> None:
    """Shade each cell by its share of the row and write the text over it."""
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.ndindex(shares.shape):
        dark = np.nan_to_num(shares[row, column]) > 0.55
        axes.text(
            column,
            row,
            text[row][column],
            ha="center",
            va="center",
            fontsize=10,
            color="white" if dark else "#1F2933",
            fontweight="bold" if row == column else "normal",
        )
    short = [wrapped_name(name) for name in names]
    axes.set_xticks(range(len(names)), short, fontsize=9)
    axes.set_yticks(range(len(names)), short, fontsize=9)
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel(translate("figure|predicted label", language), fontsize=10)
    axes.set_ylabel(translate("figure|true label", language), fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(names) - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def wrapped_name(name: str) -> str:
    """Break a long name at its spaces, so that neighbours do not overlap."""
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > MAX_SHORT_NAME:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
