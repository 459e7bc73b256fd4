"""The figures of a run's report, drawn, written, and captioned for a reader."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from glomerulab.evaluation.calibration import reliability_bins, top_confidence
from glomerulab.evaluation.error_analysis import MAX_EMBEDDED, MIN_EMBEDDED, embed
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.figures.confusion_matrix import draw_confusion_matrix, draw_label_counts
from glomerulab.evaluation.figures.decision import draw_decision_curves, draw_risk_coverage
from glomerulab.evaluation.figures.embedding import draw_embedding
from glomerulab.evaluation.figures.language import FigureNames, Say, fonts_of
from glomerulab.evaluation.figures.learning_curves import draw_learning_curves
from glomerulab.evaluation.figures.reliability import draw_reliability
from glomerulab.evaluation.figures.roc import AreaText, draw_precision_recall, draw_roc
from glomerulab.evaluation.figures.style import save_figure
from glomerulab.evaluation.metrics import label_counts_by_patient, matrices_by_patient
from glomerulab.evaluation.result import EvaluationResult
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.uncertainty import risk_coverage
from glomerulab.reports.html import svg_uri
from glomerulab.reports.run.figure_captions import figure_text
from glomerulab.reports.run.html import Figure
from glomerulab.reports.run.score_files import write_table_csv
from glomerulab.reports.run.score_tables import score_of
from glomerulab.runtime.progress import Track, silent

__all__ = ["write_run_figures"]


@dataclass(frozen=True)
class _Drawing:
    """A figure to be drawn."""

    name: str
    """Of its files."""
    draw: Callable[[], matplotlib.figure.Figure]
    text: str = ""
    """Its key in the captions where that is not its name."""
    which: str = ""
    """Which probabilities are drawn."""


def write_run_figures(
    judgement: EvaluationResult,
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
        What the classes are called, and the language of all else, captions included.
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
    eval_set, scores = judgement.eval_set, judgement.scores
    drawings = [
        *_learning(judgement.run, names),
        _confusion(eval_set, names),
        _roc(eval_set, scores, names),
        _precision_recall(eval_set, scores, names),
        _reliability(judgement, names),
        _risk_coverage(eval_set, names),
        _decision(judgement, names),
        *_embedding(judgement, features, names, folder),
    ]
    figures = []
    for one in track(drawings, "Drawing figures"):
        with fonts_of(names):
            _, svg = save_figure(one.draw(), folder, one.name)
        text = figure_text(one.text or one.name, names.language, which=one.which)
        figures.append(
            Figure(
                text.title,
                text.caption,
                alt=f"{text.title}. {text.caption}",
                uri=svg_uri(svg),
                name=one.name,
                language=names.language,
            )
        )
    return tuple(figures)


def _learning(run: RunTables, names: FigureNames) -> list[_Drawing]:
    if run.history.empty:
        return []
    return [
        _Drawing("learning_curves", lambda: draw_learning_curves(run.history, say=names.say)),
    ]


def _confusion(eval_set: EvalSet, names: FigureNames) -> _Drawing:
    if eval_set.head == "softmax":
        matrix = matrices_by_patient(eval_set).sum(axis=0)
        return _Drawing(
            "confusion_matrix", lambda: draw_confusion_matrix(matrix, names.names, say=names.say)
        )
    counts = label_counts_by_patient(eval_set)
    matrices = np.stack(
        [
            np.stack([counts.true_negative, counts.false_positive], axis=-1).sum(axis=0),
            np.stack([counts.false_negative, counts.true_positive], axis=-1).sum(axis=0),
        ],
        axis=-2,
    )
    return _Drawing(
        "confusion_matrix",
        lambda: draw_label_counts(matrices, names.names, say=names.say),
        text="label_counts",
    )


def _roc(eval_set: EvalSet, scores: pd.DataFrame, names: FigureNames) -> _Drawing:
    texts = _area_texts(eval_set, scores, "roc_auc", names)
    return _Drawing("roc", lambda: draw_roc(eval_set, texts, say=names.say))


def _precision_recall(eval_set: EvalSet, scores: pd.DataFrame, names: FigureNames) -> _Drawing:
    texts = _area_texts(eval_set, scores, "average_precision", names)
    return _Drawing(
        "precision_recall", lambda: draw_precision_recall(eval_set, texts, say=names.say)
    )


def _reliability(judgement: EvaluationResult, names: FigureNames) -> _Drawing:
    parts = {"as trained": judgement.eval_set}
    if judgement.fitted is not None:
        parts["after temperature scaling"] = judgement.fitted.scaled
    curves = {name: reliability_bins(*top_confidence(part)) for name, part in parts.items()}
    return _Drawing("reliability", lambda: draw_reliability(curves, say=names.say))


def _risk_coverage(eval_set: EvalSet, names: FigureNames) -> _Drawing:
    curve = risk_coverage(eval_set)
    return _Drawing("risk_coverage", lambda: draw_risk_coverage(curve, say=names.say))


def _decision(judgement: EvaluationResult, names: FigureNames) -> _Drawing:
    fitted = judgement.fitted
    eval_set = judgement.eval_set if fitted is None else fitted.scaled
    return _Drawing(
        "decision_curves",
        lambda: draw_decision_curves(eval_set, names.names, say=names.say),
        which=names.say("as trained" if fitted is None else "after temperature scaling"),
    )


def _embedding(
    judgement: EvaluationResult, features: pd.DataFrame | None, names: FigureNames, folder: Path
) -> list[_Drawing]:
    """Place the images by what the model saw in them, and write the places as CSV."""
    if features is None:
        return []
    eval_set = judgement.eval_set
    rows = eval_set.rows["image_id"].astype(str)
    places = features.index.intersection(pd.Index(rows))
    if not MIN_EMBEDDED <= len(places) <= MAX_EMBEDDED:
        return []
    spots = embed(features.loc[places].to_numpy(), seed=judgement.seed)
    write_table_csv(
        pd.DataFrame({"image_id": places, "x": spots[:, 0], "y": spots[:, 1]}),
        folder / "embedding.csv",
    )
    at = pd.Index(rows).get_indexer(places)
    n_labels = (eval_set.labels[at] == 1).sum(axis=1)
    groups = np.where(n_labels == 1, eval_set.labels[at].argmax(axis=1), len(names.names))
    shown = [*names.names, names.say("several or no label")]
    wrong = ~eval_set.is_correct[at]
    return [
        _Drawing("embedding", lambda: draw_embedding(spots, groups, shown, wrong, say=names.say)),
    ]


def _area_texts(
    eval_set: EvalSet, scores: pd.DataFrame, score: str, names: FigureNames
) -> list[AreaText]:
    return [
        AreaText(name, _area_text(score_of(scores, score, label_id), names.say))
        for name, label_id in zip(names.names, eval_set.taxonomy.label_ids, strict=True)
    ]


def _area_text(found: dict[str, float], say: Say) -> str:
    """Say an area and its interval in the language of the figure."""
    if math.isnan(found["value"]):
        return say("not defined")
    if math.isnan(found["low"]) or math.isnan(found["high"]):
        return f"{found['value']:.3f} ({say('interval not defined')})"
    ends = say("{low} to {high}").format(low=f"{found['low']:.3f}", high=f"{found['high']:.3f}")
    return f"{found['value']:.3f} ({ends})"
