"""Look, language, fonts and files of every figure: colour-blind safe, readable in print.

Matplotlib's object-oriented interface only: no pyplot, no global state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from glomerulab.i18n.catalogue import Language
from glomerulab.runtime.files import atomic_write
from glomerulab.taxonomy import Taxonomy

__all__ = [
    "FIGURE_FORMATS",
    "FigureFiles",
    "FigureNames",
    "figure_fonts",
    "figure_names",
    "new_figure",
    "save_figure",
    "save_figure_files",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Palette of Okabe & Ito, safe for colour-vision deficiency."""
LINE_STYLES = ("-", "--", "-.", ":")
"""Distinguish curves in print without colour."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#5F6B76"

DOTS_PER_INCH = 200
SALT = "glomerulab"

FIGURE_FORMATS = ("png", "svg", "pdf", "tiff")
MM_PER_INCH = 25.4
MIN_TEXT_SCALE = 7 / 9
"""Text of 9 points stays readable at 7, which journals ask for at least."""

LATIN_FONT = "DejaVu Sans"
CJK_FONTS = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "Noto Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "SimHei",
    "Noto Sans CJK JP",
    "Droid Sans Fallback",
)
"""Fonts with simplified Chinese, in order of preference."""

CJK_FILES = (
    "cjk",
    "sourcehan",
    "notosanssc",
    "wqy",
    "msyh",
    "pingfang",
    "hiragino",
    "simhei",
    "fallback",
)
"""Parts of the names of their files."""


@dataclass(frozen=True, slots=True)
class FigureNames:
    """Display names of the labels, and the language of figures and captions."""

    names: tuple[str, ...]
    """In the order of the taxonomy."""
    fonts: tuple[str, ...]
    """Font families with all letters; matplotlib falls back from one to the next."""
    notice: str = ""
    """Why figures are in English although Chinese was requested; empty otherwise."""
    language: Language = "en"


@dataclass(frozen=True, slots=True)
class FigureFiles:
    """Files of every figure, as a journal asks for them."""

    formats: tuple[str, ...] = ("png", "svg")
    """Of `FIGURE_FORMATS`."""
    dpi: int = 300
    width_mm: float | None = None
    """None keeps the width of each figure."""


def figure_names(taxonomy: Taxonomy | None, language: Language = "en") -> FigureNames:
    """Return display names in a language, or in English with a notice where it cannot be drawn.

    Chinese needs an installed font and a Chinese name of every label; figures without labels have
    no taxonomy.
    """
    labels = () if taxonomy is None else taxonomy.labels
    english = FigureNames(tuple(label.name for label in labels), (LATIN_FONT,))
    if language == "en":
        return english
    chinese = tuple(label.name_zh for label in labels if label.name_zh)
    if len(chinese) < len(labels):
        notice = "Figures are in English: the taxonomy has no Chinese name for some labels."
        return FigureNames(english.names, english.fonts, notice)
    font = find_cjk_font()
    if font is None:
        notice = (
            "Figures are in English: no font with Chinese was found; install one, such as "
            "fonts-noto-cjk."
        )
        return FigureNames(english.names, english.fonts, notice)
    return FigureNames(chinese, (LATIN_FONT, font), language="zh")


def find_cjk_font() -> str | None:
    """Return the first of `CJK_FONTS` that is installed."""
    found = _first_known_font()
    if found is None:
        # Matplotlib caches its list of fonts for years: look for fonts installed since.
        for path in map(Path, font_manager.findSystemFonts()):
            if any(part in path.name.lower() for part in CJK_FILES):
                font_manager.fontManager.addfont(path)
        found = _first_known_font()
    return found


@contextmanager
def figure_fonts(names: FigureNames) -> Iterator[None]:
    """Draw with fonts that have the letters of `names`."""
    with mpl.rc_context({"font.family": list(names.fonts)}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that can be saved without a display.

    Parameters
    ----------
    width, height : float
        Inches. Text is 9 to 11 points, so that a figure of 5.6 inches fits a printed page and is
        readable on a telephone.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, *, title: str = "", x_label: str = "", y_label: str = "") -> Axes:
    """Label the axes; remove the upper and right spines and add a light grid."""
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E3E7EB", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def save_figure(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``name.png`` and ``name.svg`` into an existing folder and return their paths.

    The same figure gives the same bytes.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is done; do not repeat it for each file
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with atomic_write(png) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata={"Software": None})
    # Letters as outlines: a reader's machine need not have the font.
    outlines = mpl.rc_context({"svg.hashsalt": SALT, "svg.fonttype": "path"})
    with outlines, atomic_write(svg) as temporary:
        figure.savefig(temporary, metadata={"Date": None, "Creator": None})
    return png, svg


def save_figure_files(
    figure: Figure, folder: Path, name: str, files: FigureFiles
) -> tuple[Path, ...]:
    """Write a figure in the formats of `files`, its text as text that can be edited.

    Formats of `save_figure` that are not among them are removed, so that no figure of another size
    stays beside them.
    """
    if files.width_mm is not None:
        _fit_width(figure, files.width_mm / MM_PER_INCH)
    metadata: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    paths = []
    editable = mpl.rc_context({"svg.hashsalt": SALT, "svg.fonttype": "none", "pdf.fonttype": 42})
    with editable:
        for suffix in files.formats:
            path = folder / f"{name}.{suffix}"
            with atomic_write(path) as temporary:
                figure.savefig(temporary, dpi=files.dpi, metadata=metadata.get(suffix))
            paths.append(path)
    for path in (folder / f"{name}.png", folder / f"{name}.svg"):
        if path not in paths:
            path.unlink(missing_ok=True)
    return tuple(paths)


def _fit_width(figure: Figure, width: float) -> None:
    """Scale a figure to a width in inches; its text is scaled less."""
    factor = width / figure.get_figwidth()
    scale = min(1.0, max(factor, MIN_TEXT_SCALE))
    for artist in figure.findobj(Text):
        if isinstance(artist, Text):
            artist.set_fontsize(float(artist.get_fontsize()) * scale)
    for line in figure.findobj(Line2D):
        if isinstance(line, Line2D):
            line.set_linewidth(line.get_linewidth() * scale)
    figure.set_size_inches(width, figure.get_figheight() * (factor + min(1.0, scale)) / 2)
    figure.set_layout_engine("constrained")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _first_known_font() -> str | None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in installed), None)
