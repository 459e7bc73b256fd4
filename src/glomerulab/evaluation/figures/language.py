"""What figures say in English or Chinese, and the font that can draw it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib import font_manager

from glomerulab.taxonomy import Taxonomy

__all__ = [
    "CHINESE",
    "CJK_FONTS",
    "FigureNames",
    "Language",
    "Say",
    "english",
    "figure_names",
    "find_cjk_font",
    "fonts_of",
]

Language = Literal["en", "zh"]
Say = Callable[[str], str]
"""Gives an English phrase in the language of the figure; braces in it are filled afterwards."""

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

CHINESE = {
    "AUC": "AUC",
    "Accuracy": "准确率",
    "Loss": "损失",
    "absent": "无",
    "after temperature scaling": "温度缩放后",
    "all": "全部处理",
    "answering all": "全部作答",
    "as trained": "原始输出",
    "average precision": "平均精确率",
    "called by the model": "模型判定",
    "called wrong ({count})": "判错（{count}）",
    "chance: 0.5": "随机：0.5",
    "count": "数量",
    "epoch": "轮次",
    "false positive rate (1 − specificity)": "假阳性率（1 − 特异度）",
    "interval not defined": "区间无法计算",
    "loss": "损失",
    "lowest validation loss: epoch {epoch}": "验证损失最低：第 {epoch} 轮",
    "model": "模型",
    "net benefit": "净获益",
    "none": "都不处理",
    "not defined": "无法计算",
    "perfect": "理想",
    "precision": "精确率",
    "present": "有",
    "probability given by the model": "模型给出的概率",
    "recall": "召回率",
    "several or no label": "多个标签或无标签",
    "share of images that the model answers (the rest is referred)": (
        "模型作答的图像比例（其余转交人工）"
    ),
    "share of those answered wrong": "作答图像中的错误比例",
    "share right": "正确比例",
    "share that came true": "实际发生的比例",
    "threshold probability": "阈值概率",
    "training": "训练",
    "true label": "真实标签",
    "true positive rate (recall)": "真阳性率（召回率）",
    "validation": "验证",
    "{low} to {high}": "{low} 至 {high}",
}
"""What figures of a run say, by the English phrase."""


@dataclass(frozen=True, slots=True)
class FigureNames:
    """What classes are called in figures, and the language of all else in them."""

    names: tuple[str, ...]
    """In the order of the taxonomy."""
    fonts: tuple[str, ...]
    """Font families that have all their letters, the first preferred."""
    notice: str = ""
    """Why figures are English although Chinese was asked for; empty otherwise."""
    language: Language = "en"

    @property
    def say(self) -> Say:
        """Every other phrase of a figure, in its language."""
        return english if self.language == "en" else CHINESE.__getitem__


def english(text: str) -> str:
    """Return the phrase as it is."""
    return text


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
    return FigureNames(named, (LATIN_FONT, font), language="zh")


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
