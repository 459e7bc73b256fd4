"""How every figure looks and is written: colour-blind safe, readable in print and on screen.

Matplotlib's object-oriented interface only: no pyplot, no global state.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from glomerulab.runtime.files import atomic_write

__all__ = ["COLOURS", "GREY", "LINE_STYLES", "MARKERS", "new_figure", "plain_axes", "save_figure"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Okabe & Ito's palette, told apart by people who see colours differently; darkest first."""
LINE_STYLES = ("-", "--", "-.", ":")
"""A second difference, for print without colour."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#5F6B76"

DOTS_PER_INCH = 200
SALT = "glomerulab"


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure that can be saved without a display.

    Parameters
    ----------
    width, height : float
        Inches. Text is 9 to 11 points, so that a figure of 5.6 inches fits a printed page as it
        is and can be read on a telephone.

    Returns
    -------
    Figure
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, *, title: str = "", x_label: str = "", y_label: str = "") -> Axes:
    """Name the axes and take away what does not inform."""
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E3E7EB", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def save_figure(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG; the same figure gives the same bytes.

    Parameters
    ----------
    figure : Figure
    folder : Path
        Must exist.
    name : str
        File name without suffix.

    Returns
    -------
    png, svg : Path
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is laid out: not twice more for two files
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with atomic_write(png) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
    # Letters as outlines: a reader's machine need not have the font.
    outlines = mpl.rc_context({"svg.hashsalt": SALT, "svg.fonttype": "path"})
    with outlines, atomic_write(svg) as temporary:
        figure.savefig(temporary, metadata={"Date": None, "Creator": None})
    return png, svg
