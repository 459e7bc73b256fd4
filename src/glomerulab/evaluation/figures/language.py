"""Class names in English or Chinese, and the font that can draw them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib import font_manager

from glomerulab.taxonomy import Taxonomy

__all__ = ["CJK_FONTS", "FigureNames", "Language", "figure_names", "find_cjk_font", "fonts_of"]

Language = Literal["en", "zh"]

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
"""Fonts with simplified Chinese, the first that is installed is taken."""

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
"""What stands in the names of their files."""

LATIN_FONT = "DejaVu Sans"


@dataclass(frozen=True, slots=True)
class FigureNames:
    """What classes are called in figures."""

    names: tuple[str, ...]
    """In the order of the taxonomy."""
    fonts: tuple[str, ...]
    """Font families that have all their letters, the first preferred."""
    notice: str = ""
    """Why the names are English although Chinese was asked for; empty otherwise."""


def find_cjk_font() -> str | None:
    """Return the first of `CJK_FONTS` that is installed on this machine."""
    found = _first_known()
    if found is None:
        # Matplotlib keeps its list of fonts for years: one installed since is not on it.
        for path in map(Path, font_manager.findSystemFonts()):
            if any(part in path.name.lower() for part in CJK_FILES):
                font_manager.fontManager.addfont(path)
        found = _first_known()
    return found


def _first_known() -> str | None:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in installed), None)


def figure_names(taxonomy: Taxonomy, language: Language = "en") -> FigureNames:
    """Return the names of the classes, in Chinese only where they can be drawn.

    Parameters
    ----------
    taxonomy : Taxonomy
    language : {"en", "zh"}, default "en"

    Returns
    -------
    FigureNames
        English with a notice where a name or a font is missing: never empty boxes.
    """
    english = FigureNames(tuple(label.name for label in taxonomy.labels), (LATIN_FONT,))
    if language == "en":
        return english
    chinese = [label.name_zh for label in taxonomy.labels]
    named = tuple(name for name in chinese if name)
    if len(named) < len(chinese):
        notice = "Figures are in English: the taxonomy has no Chinese name for some labels."
        return FigureNames(english.names, english.fonts, notice)
    font = find_cjk_font()
    if font is None:
        notice = (
            "Figures are in English: no font with Chinese was found; install one, such as "
            "fonts-noto-cjk."
        )
        return FigureNames(english.names, english.fonts, notice)
    return FigureNames(named, (LATIN_FONT, font))


@contextmanager
def fonts_of(names: FigureNames) -> Iterator[None]:
    """Draw with fonts that have the letters of these names.

    Parameters
    ----------
    names : FigureNames

    Yields
    ------
    None
    """
    with mpl.rc_context({"font.family": list(names.fonts)}):
        yield
