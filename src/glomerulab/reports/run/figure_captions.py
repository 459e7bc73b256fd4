"""What each figure of a run is called and how to read it, in English and Chinese."""

from dataclasses import dataclass

from glomerulab.evaluation.figures.language import Language

__all__ = ["CAPTIONS", "EXTERNAL_SET", "FigureText", "figure_text"]


@dataclass(frozen=True, slots=True)
class FigureText:
    """A title and a caption."""

    title: str
    caption: str


CAPTIONS: dict[str, dict[Language, FigureText]] = {
    "learning_curves": {
        "en": FigureText(
            "Learning curves (as Fig. 9 of the paper)",
            "Both curves should level off together. Validation loss that rises while training loss "
            "falls means that the model learns its training images by heart.",
        ),
        "zh": FigureText(
            "学习曲线（对应论文图 9）",
            "两条曲线应同时趋于平稳。训练损失下降而验证损失上升，说明模型在死记训练图像。",
        ),
    },
    "confusion_matrix": {
        "en": FigureText(
            "Confusion matrix (as Fig. 10 of the paper)",
            "Each row is a true class, each column what the model called it; the diagonal is "
            "right. Each cell gives the number of images and their share of the row, so that the "
            "diagonal shows the recall of each class.",
        ),
        "zh": FigureText(
            "混淆矩阵（对应论文图 10）",
            "每行是真实类别，每列是模型的判定，对角线为判对。每格给出图像数及其占该行的比例，"
            "因此对角线即各类的召回率。",
        ),
    },
    "label_counts": {
        "en": FigureText(
            "Confusion matrix (as Fig. 10 of the paper)",
            "One table per label: rows are the truth, columns what the model called; percentages "
            "are of the row, so the lower right cell is the recall and the upper left the "
            "specificity.",
        ),
        "zh": FigureText(
            "混淆矩阵（对应论文图 10）",
            "每个标签一张表：行是真实情况，列是模型的判定；百分比按行计算，"
            "因此右下格为召回率，左上格为特异度。",
        ),
    },
    "roc": {
        "en": FigureText(
            "ROC curves (as Fig. 11 of the paper)",
            "Each class against the rest. The nearer a curve comes to the upper left corner the "
            "better; the diagonal is guessing. The legend gives the area under each curve with its "
            "95 % interval over patients.",
        ),
        "zh": FigureText(
            "ROC 曲线（对应论文图 11）",
            "每一类对其余各类。曲线越靠近左上角越好，对角线等于随机猜测。"
            "图例给出曲线下面积及其按患者重抽样的 95 % 区间。",
        ),
    },
    "precision_recall": {
        "en": FigureText(
            "Precision and recall",
            "How many of the images called so truly are (precision) as more of them are found "
            "(recall). Tells more than the ROC curve where a class is rare.",
        ),
        "zh": FigureText(
            "精确率与召回率",
            "随着找出的图像增多（召回率），判为该类的图像中有多少确属该类（精确率）。"
            "类别少见时，它比 ROC 曲线更能说明问题。",
        ),
    },
    "reliability": {
        "en": FigureText(
            "Reliability of the probabilities",
            "On the diagonal, a probability of 0.8 comes true eight times in ten; below it the "
            "model is too sure of itself. The bars count the probabilities in each of 10 bins: a "
            "point over a short bar says little.",
        ),
        "zh": FigureText(
            "概率的可靠性",
            "在对角线上，0.8 的概率十次中有八次成真；低于对角线说明模型过于自信。"
            "下方的条形是 10 个区间各自的概率个数：条形很短时，其上的点说明不了什么。",
        ),
    },
    "risk_coverage": {
        "en": FigureText(
            "Errors left when uncertain images are referred",
            "If only the images the model is most certain of are answered and the rest goes to a "
            "person, this share of the answers is wrong. The curve should fall to the left; a flat "
            "one means that the model does not know when it does not know.",
        ),
        "zh": FigureText(
            "把不确定的图像转交人工后剩余的错误",
            "如果模型只回答最有把握的图像、其余转交人工，这就是其回答中的错误比例。"
            "曲线应向左下降；平坦则说明模型不知道自己何时不知道。",
        ),
    },
    "decision_curves": {
        "en": FigureText(
            "Decision curves",
            "For a reader who acts on a class from a given probability on: the net benefit of "
            "acting on the model's word, on every image, or on none. The model is worth using "
            "where its curve is the highest. Probabilities {which}.",
        ),
        "zh": FigureText(
            "决策曲线",
            "假设读片者在某类概率达到阈值时采取行动：分别按模型判定、对全部图像、"
            "对任何图像都不行动时的净获益。模型的曲线最高之处才值得使用模型。所用概率：{which}。",
        ),
    },
    "embedding": {
        "en": FigureText(
            "What the model takes for alike",
            "One point per judged image: images that look alike to the model stand together (t-SNE "
            "of the last features). Only neighbourhoods mean something, not axes or distances. A "
            "class that falls into several islands may be split by stain or scanner.",
        ),
        "zh": FigureText(
            "模型眼中的相似图像",
            "每点是一张受评图像：模型认为相似的图像聚在一起（末层特征的 t-SNE）。"
            "只有邻近关系有意义，坐标轴和距离没有意义。一类分成几个岛，可能是染色或扫描仪不同所致。",
        ),
    },
}
"""By the figure's name; braces are filled by `figure_text`."""

EXTERNAL_SET: dict[Language, str] = {"en": "External set: {title}", "zh": "外部数据集：{title}"}
"""Title of a figure of the external set on the run's own page."""


def figure_text(name: str, language: Language = "en", *, which: str = "") -> FigureText:
    """Return what a figure is called and how to read it.

    Parameters
    ----------
    name : str
        A key of `CAPTIONS`.
    language : {"en", "zh"}, default "en"
    which : str, default ""
        Which probabilities are drawn, in that language.

    Returns
    -------
    FigureText
    """
    text = CAPTIONS[name][language]
    return FigureText(text.title, text.caption.format(which=which))
