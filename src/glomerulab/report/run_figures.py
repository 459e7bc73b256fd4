"""The figures of a run's report, drawn, written, and captioned for a reader."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from glomerulab.evaluation.calibration import reliability_bins, top_confidence
from glomerulab.evaluation.confusion import label_counts_by_patient, matrices_by_patient
from glomerulab.evaluation.embedding import MAX_IMAGES, MIN_IMAGES, embed
from glomerulab.evaluation.figures.confusion_matrix import draw_confusion_matrix, draw_label_counts
from glomerulab.evaluation.figures.decision import draw_decision_curves, draw_risk_coverage
from glomerulab.evaluation.figures.embedding import draw_embedding
from glomerulab.evaluation.figures.language import FigureNames, fonts_of
from glomerulab.evaluation.figures.learning_curves import draw_learning_curves
from glomerulab.evaluation.figures.reliability import draw_reliability
from glomerulab.evaluation.figures.roc import AreaText, draw_precision_recall, draw_roc
from glomerulab.evaluation.figures.style import save_figure
from glomerulab.evaluation.judged import Judged
from glomerulab.evaluation.judgement import Judgement
from glomerulab.evaluation.risk_coverage import image_is_right, risk_coverage
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.progress import Track, silent
from glomerulab.report.data_uri import svg_uri
from glomerulab.report.score_tables import score_of
from glomerulab.report.score_words import with_interval
from glomerulab.report.write_html import Figure
from glomerulab.report.write_scores import write_table_csv

__all__ = ["write_run_figures"]

Drawing = tuple[str, str, str, Callable[[], matplotlib.figure.Figure]]
"""File name, title, caption, and what draws it."""


def write_run_figures(
    judgement: Judgement,
    names: FigureNames,
    folder: Path,
    *,
    features: pd.DataFrame | None = None,
    track: Track = silent,
) -> tuple[Figure, ...]:
    """Draw every figure the tables allow and write it as PNG and SVG.

    Parameters
    ----------
    judgement : Judgement
    names : FigureNames
        What the classes are called.
    folder : Path
        Must exist.
    features : DataFrame, optional
        What the classifier saw of each judged image, its id as index; gives the embedding.
    track : Track, default silent

    Returns
    -------
    tuple of Figure
        As the page shows them.
    """
    judged, scores = judgement.judged, judgement.scores
    drawings = [
        *_learning(judgement.run),
        _confusion(judged, names.names),
        _roc(judged, scores, names.names),
        _precision_recall(judged, scores, names.names),
        _reliability(judgement),
        _risk_coverage(judged),
        _decision(judgement, names.names),
        *_embedding(judgement, features, names.names, folder),
    ]
    figures = []
    for name, title, caption, draw in track(drawings, "Drawing figures"):
        with fonts_of(names):
            _, svg = save_figure(draw(), folder, name)
        figures.append(Figure(title, caption, alt=f"{title}. {caption}", uri=svg_uri(svg)))
    return tuple(figures)


def _learning(run: RunTables) -> list[Drawing]:
    if run.history.empty:
        return []
    caption = (
        "Both curves should level off together. Validation loss that rises while training loss "
        "falls means that the model learns its training images by heart."
    )
    return [
        (
            "learning_curves",
            "Learning curves (as Fig. 9 of the paper)",
            caption,
            lambda: draw_learning_curves(run.history),
        )
    ]


def _confusion(judged: Judged, names: Sequence[str]) -> Drawing:
    title = "Confusion matrix (as Fig. 10 of the paper)"
    if judged.head == "softmax":
        caption = (
            "Each row is a true class, each column what the model called it; the diagonal is "
            "right. Each cell gives the number of images and their share of the row, so that the "
            "diagonal shows the recall of each class."
        )
        matrix = matrices_by_patient(judged).sum(axis=0)
        return "confusion_matrix", title, caption, lambda: draw_confusion_matrix(matrix, names)
    caption = (
        "One table per label: rows are the truth, columns what the model called; percentages are "
        "of the row, so the lower right cell is the recall and the upper left the specificity."
    )
    counts = label_counts_by_patient(judged)
    matrices = np.stack(
        [
            np.stack([counts.true_negative, counts.false_positive], axis=-1).sum(axis=0),
            np.stack([counts.false_negative, counts.true_positive], axis=-1).sum(axis=0),
        ],
        axis=-2,
    )
    return "confusion_matrix", title, caption, lambda: draw_label_counts(matrices, names)


def _roc(judged: Judged, scores: pd.DataFrame, names: Sequence[str]) -> Drawing:
    caption = (
        "Each class against the rest. The nearer a curve comes to the upper left corner the "
        "better; the diagonal is guessing. The legend gives the area under each curve with its "
        "95 % interval over patients."
    )
    texts = _area_texts(judged, scores, "roc_auc", names)
    return (
        "roc",
        "ROC curves (as Fig. 11 of the paper)",
        caption,
        lambda: draw_roc(judged, texts),
    )


def _precision_recall(judged: Judged, scores: pd.DataFrame, names: Sequence[str]) -> Drawing:
    caption = (
        "How many of the images called so truly are (precision) as more of them are found "
        "(recall). Tells more than the ROC curve where a class is rare."
    )
    texts = _area_texts(judged, scores, "average_precision", names)
    return (
        "precision_recall",
        "Precision and recall",
        caption,
        lambda: draw_precision_recall(judged, texts),
    )


def _reliability(judgement: Judgement) -> Drawing:
    parts = {"as trained": judgement.judged}
    if judgement.fitted is not None:
        parts["after temperature scaling"] = judgement.fitted.scaled
    curves = {name: reliability_bins(*top_confidence(part)) for name, part in parts.items()}
    caption = (
        "On the diagonal, a probability of 0.8 comes true eight times in ten; below it the model "
        "is too sure of itself. The bars count the probabilities in each of 10 bins: a point over "
        "a short bar says little."
    )
    title = "Reliability of the probabilities"
    return "reliability", title, caption, lambda: draw_reliability(curves)


def _risk_coverage(judged: Judged) -> Drawing:
    curve = risk_coverage(judged)
    caption = (
        "If only the images the model is most certain of are answered and the rest goes to a "
        "person, this share of the answers is wrong. The curve should fall to the left; a flat one "
        "means that the model does not know when it does not know."
    )
    title = "Errors left when uncertain images are referred"
    return "risk_coverage", title, caption, lambda: draw_risk_coverage(curve)


def _decision(judgement: Judgement, names: Sequence[str]) -> Drawing:
    fitted = judgement.fitted
    judged = judgement.judged if fitted is None else fitted.scaled
    which = "as trained" if fitted is None else "after temperature scaling"
    caption = (
        "For a reader who acts on a class from a given probability on: the net benefit of acting "
        "on the model's word, on every image, or on none. The model is worth using where its curve "
        f"is the highest. Probabilities {which}."
    )
    return (
        "decision_curves",
        "Decision curves",
        caption,
        lambda: draw_decision_curves(judged, names),
    )


def _embedding(
    judgement: Judgement, features: pd.DataFrame | None, names: Sequence[str], folder: Path
) -> list[Drawing]:
    """Place the images by what the model saw in them, and write the places as CSV."""
    if features is None:
        return []
    judged = judgement.judged
    rows = judged.rows["image_id"].astype(str)
    places = features.index.intersection(pd.Index(rows))
    if not MIN_IMAGES <= len(places) <= MAX_IMAGES:
        return []
    spots = embed(features.loc[places].to_numpy(), seed=judgement.seed)
    write_table_csv(
        pd.DataFrame({"image_id": places, "x": spots[:, 0], "y": spots[:, 1]}),
        folder / "embedding.csv",
    )
    at = pd.Index(rows).get_indexer(places)
    n_labels = (judged.labels[at] == 1).sum(axis=1)
    groups = np.where(n_labels == 1, judged.labels[at].argmax(axis=1), len(names))
    caption = (
        "One point per judged image: images that look alike to the model stand together (t-SNE of "
        "the last features). Only neighbourhoods mean something, not axes or distances. A class "
        "that falls into several islands may be split by stain or scanner."
    )
    shown = [*names, "several or no label"]
    wrong = ~image_is_right(judged)[at]
    return [
        (
            "embedding",
            "What the model takes for alike",
            caption,
            lambda: draw_embedding(spots, groups, shown, wrong),
        )
    ]


def _area_texts(
    judged: Judged, scores: pd.DataFrame, score: str, names: Sequence[str]
) -> list[AreaText]:
    return [
        AreaText(name, with_interval(**score_of(scores, score, label_id)))
        for name, label_id in zip(names, judged.taxonomy.label_ids, strict=True)
    ]
