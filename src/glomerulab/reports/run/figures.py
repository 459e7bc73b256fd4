"""Figures and error gallery of a run's report, with their captions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import pandas as pd

from glomerulab.cohort.near_duplicates import NearDuplicate
from glomerulab.errors import ImageFileError
from glomerulab.evaluation.calibration import reliability_curve, top_confidence
from glomerulab.evaluation.error_analysis import (
    MAX_EMBEDDED,
    MIN_EMBEDDED,
    WorstError,
    embed,
    worst_errors,
)
from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.figures.confusion_matrix import draw_confusion_matrix, draw_label_counts
from glomerulab.evaluation.figures.curves import (
    AreaText,
    draw_decision_curves,
    draw_learning_curves,
    draw_precision_recall,
    draw_reliability,
    draw_risk_coverage,
    draw_roc,
)
from glomerulab.evaluation.figures.embedding import draw_embedding
from glomerulab.evaluation.figures.style import (
    FigureFiles,
    FigureNames,
    figure_fonts,
    save_figure,
    save_figure_files,
)
from glomerulab.evaluation.intervals import MARK
from glomerulab.evaluation.metrics import label_counts_by_patient, matrices_by_patient
from glomerulab.evaluation.result import EvaluationResult
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.uncertainty import risk_coverage
from glomerulab.evaluation.warnings import EvaluationWarning
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.reports.html import THUMBNAIL_PX, svg_uri, thumbnail_uri
from glomerulab.reports.run.html import Figure, GalleryItem
from glomerulab.reports.run.tables import Score, percent, score_of, write_table_csv
from glomerulab.runtime.progress import Track, silent

__all__ = ["TABLES_ONLY", "ImageAnalysis"]

N_NAMED = 3


class Caption(NamedTuple):
    """Title and text below a figure."""

    title: str
    text: str


CAPTIONS = {
    "learning_curves": Caption(
        "Learning curves (as Fig. 9 of the paper)",
        "Both curves should level off together. Validation loss that rises while training loss "
        "falls is a sign of overfitting.",
    ),
    "confusion_matrix": Caption(
        "Confusion matrix (as Fig. 10 of the paper)",
        "Each row is a true class, each column a predicted one. Each cell gives the number of "
        "images and their share of the row, so the diagonal shows the recall of each class.",
    ),
    "label_counts": Caption(
        "Confusion matrix (as Fig. 10 of the paper)",
        "One table per label: rows are the truth, columns the prediction. Percentages are of the "
        "row, so the lower right cell is the recall and the upper left the specificity.",
    ),
    "roc": Caption(
        "ROC curves (as Fig. 11 of the paper)",
        "Each class against the rest. The nearer a curve is to the upper left corner the better; "
        "the diagonal is chance. The legend gives the area under each curve with its 95 % interval "
        "over patients.",
    ),
    "precision_recall": Caption(
        "Precision and recall",
        "Precision against recall as the threshold falls. It is more informative than the ROC "
        "curve for a rare class.",
    ),
    "reliability": Caption(
        "Reliability of the probabilities",
        "On the diagonal, a probability of 0.8 is correct eight times in ten; below it the model "
        "is overconfident. Each point stands for the same number of probabilities, with Wilson's "
        "95 % interval; the curve is a smooth mean over all of them.",
    ),
    "risk_coverage": Caption(
        "Errors left when uncertain images are referred",
        "The share of errors if the model answers only the images it is most confident of and "
        "refers the rest to a person. The curve should fall to the left; a flat one means that "
        "the confidence does not identify the errors.",
    ),
    "decision_curves": Caption(
        "Decision curves",
        "The net benefit of acting on the model, on every image, or on none, for a reader who acts "
        "on a class from a given probability on. The model is useful where its curve is the "
        "highest. Probabilities {which}.",
    ),
    "embedding": Caption(
        "Map of the model's features",
        "One point per evaluated image: images with similar features are close together (t-SNE "
        "of the last features). Only neighbourhoods have a meaning, not axes or distances. A class "
        "that falls into several islands may be split by stain or scanner.",
    ),
}
"""By figure; the texts are keys of the catalogue."""

CONFIDENT_FIRST = (
    "The most confident errors come first; the percentage is the probability of the wrong call. "
)
EXPLAINED = (
    " The grey map beside each image shows where the model looked (occlusion): the brighter, the "
    "more it supported the call or, for a missed label, that label. `glomerulab explain` tests "
    "whether such maps are reliable."
)


@dataclass(frozen=True)
class ImageAnalysis:
    """What images and checkpoint add to a run's tables; reports themselves open neither."""

    features: pd.DataFrame | None = None
    """One row per evaluated image, its id as index: the input of the classifier."""
    explain: Callable[[WorstError], Path | None] | None = None
    """Draws a saliency map and returns the file; None where the image cannot be read."""
    near_duplicates: tuple[NearDuplicate, ...] | None = None
    """Nearly equal images in two splits; None where they were not searched for."""
    notices: tuple[str, ...] = ()
    """What could not be done, in one sentence each."""
    unreadable: str = ""
    """Which images cannot be read, and what the page lacks of them."""

    def warnings(self) -> tuple[EvaluationWarning, ...]:
        """Return the warnings about unreadable images and near-duplicates."""
        found = self._near_duplicates()
        if self.unreadable:
            return (EvaluationWarning("Images not shown", self.unreadable), *found)
        return found

    def _near_duplicates(self) -> tuple[EvaluationWarning, ...]:
        if self.near_duplicates is None:
            text = "The images were not searched for near-duplicates in different splits."
            return (EvaluationWarning("Near-duplicates not searched for", text),)
        if not self.near_duplicates:
            return ()
        text = (
            f"{len(self.near_duplicates)} pairs of images in different splits are nearly equal, so "
            f"the model may have been evaluated on images it was trained on: "
            f"{pairs_text(self.near_duplicates)}."
        )
        return (EvaluationWarning("Near-duplicates across splits", text, severe=True),)


TABLES_ONLY = ImageAnalysis()


def pairs_text(pairs: Sequence[NearDuplicate]) -> str:
    """Name the first pairs and count the others."""
    named = "; ".join(map(str, pairs[:N_NAMED]))
    n_more = len(pairs) - N_NAMED
    return f"{named}; and {n_more} more" if n_more > 0 else named


@dataclass(frozen=True)
class _Drawing:
    """A figure to draw."""

    name: str
    """Name of its files."""
    draw: Callable[[], matplotlib.figure.Figure]
    caption: str = ""
    """Key of `CAPTIONS` if not `name`."""
    which: str = ""
    """Which probabilities are drawn."""


def write_run_figures(
    result: EvaluationResult,
    names: FigureNames,
    folder: Path,
    *,
    features: pd.DataFrame | None = None,
    files: FigureFiles | None = None,
    track: Track = silent,
) -> tuple[Figure, ...]:
    """Draw every figure that the tables allow and write it, by default as PNG and SVG."""
    eval_set = result.eval_set
    drawings = [*_learning(result.run, names), _confusion(eval_set, names)]
    if eval_set.has_probabilities:
        drawings += _probability_drawings(result, names)
    drawings += _embedding(result, features, names, folder)
    figures = []
    for one in track(drawings, "Drawing figures"):
        with figure_fonts(names):
            drawn = one.draw()
            _, svg = save_figure(drawn, folder, one.name)
            uri = svg_uri(svg)
            if files is not None:
                save_figure_files(drawn, folder, one.name, files)
        title, caption = figure_caption(one.caption or one.name, names.language, which=one.which)
        figures.append(
            Figure(
                title,
                caption,
                alt=f"{title}. {caption}",
                uri=uri,
                name=one.name,
                language=names.language,
            )
        )
    return tuple(figures)


def _probability_drawings(result: EvaluationResult, names: FigureNames) -> list[_Drawing]:
    eval_set, scores = result.eval_set, result.scores
    return [
        _roc(eval_set, scores, names),
        _precision_recall(eval_set, scores, names),
        _reliability(result, names),
        _risk_coverage(eval_set, names),
        _decision(result, names),
    ]


def figure_caption(name: str, language: Language = "en", *, which: str = "") -> tuple[str, str]:
    """Return title and caption of a figure; `which` names the probabilities drawn."""
    title, caption = CAPTIONS[name]
    return translate(title, language), translate(caption, language, which=which)


def gallery(
    run: RunTables, eval_set: EvalSet, *, n_most: int = 12, images: ImageAnalysis = TABLES_ONLY
) -> tuple[GalleryItem, ...]:
    """Return the worst errors with small pictures; an unreadable picture becomes the reason."""
    items = []
    names = {label.id: label.name for label in eval_set.taxonomy.labels}
    for error in worst_errors(eval_set, n_most=n_most):
        overlay = None if images.explain is None else images.explain(error)
        size_px = THUMBNAIL_PX if overlay is None else 2 * THUMBNAIL_PX
        uri, reason = _picture(overlay or run.image_paths.get(error.image_id), size_px)
        items.append(
            GalleryItem(
                image_id=error.image_id,
                true_label=error.true_label,
                called=error.called,
                confidence=percent(error.confidence) if eval_set.has_probabilities else "",
                uri=uri,
                reason=reason,
                explained="" if overlay is None else names[error.label_id],
            )
        )
    return tuple(items)


def gallery_note(eval_set: EvalSet, *, images: ImageAnalysis = TABLES_ONLY) -> str:
    """Return the number of errors and the order of the gallery."""
    n_wrong = int((~eval_set.is_correct).sum())
    if n_wrong == 0:
        return "There are none: every evaluated image was called correctly."
    return (
        f"{n_wrong} of {eval_set.n_images} images were called wrongly. "
        + (CONFIDENT_FIRST if eval_set.has_probabilities else "")
        + "Look for a common cause: "
        "focus, stain, an edge of the biopsy, two lesions at once, or a label that needs a second "
        "opinion." + (EXPLAINED if images.explain is not None else "")
    )


def _picture(path: Path | None, size_px: int) -> tuple[str | None, str]:
    if path is None:
        return None, "The manifest has no path of this image."
    try:
        return thumbnail_uri(path, size_px=size_px), ""
    except ImageFileError as error:
        return None, f"{path.name}: {error.message}"


def _learning(run: RunTables, names: FigureNames) -> list[_Drawing]:
    if run.history.empty:
        return []
    return [
        _Drawing(
            "learning_curves", lambda: draw_learning_curves(run.history, language=names.language)
        ),
    ]


def _confusion(eval_set: EvalSet, names: FigureNames) -> _Drawing:
    if eval_set.head == "softmax":
        matrix = matrices_by_patient(eval_set).sum(axis=0)
        return _Drawing(
            "confusion_matrix",
            lambda: draw_confusion_matrix(matrix, names.names, language=names.language),
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
        lambda: draw_label_counts(matrices, names.names, language=names.language),
        caption="label_counts",
    )


def _roc(eval_set: EvalSet, scores: pd.DataFrame, names: FigureNames) -> _Drawing:
    texts = _area_texts(eval_set, scores, "roc_auc", names)
    return _Drawing("roc", lambda: draw_roc(eval_set, texts, language=names.language))


def _precision_recall(eval_set: EvalSet, scores: pd.DataFrame, names: FigureNames) -> _Drawing:
    texts = _area_texts(eval_set, scores, "average_precision", names)
    return _Drawing(
        "precision_recall", lambda: draw_precision_recall(eval_set, texts, language=names.language)
    )


def _reliability(result: EvaluationResult, names: FigureNames) -> _Drawing:
    sets = {_probabilities_of(names, scaled=False): result.eval_set}
    if result.fitted is not None:
        sets[_probabilities_of(names, scaled=True)] = result.fitted.scaled
    curves = {name: reliability_curve(*top_confidence(one)) for name, one in sets.items()}
    return _Drawing("reliability", lambda: draw_reliability(curves, language=names.language))


def _risk_coverage(eval_set: EvalSet, names: FigureNames) -> _Drawing:
    curve = risk_coverage(eval_set)
    return _Drawing("risk_coverage", lambda: draw_risk_coverage(curve, language=names.language))


def _decision(result: EvaluationResult, names: FigureNames) -> _Drawing:
    fitted = result.fitted
    eval_set = result.eval_set if fitted is None else fitted.scaled
    return _Drawing(
        "decision_curves",
        lambda: draw_decision_curves(eval_set, names.names, language=names.language),
        which=_probabilities_of(names, scaled=fitted is not None),
    )


def _embedding(
    result: EvaluationResult, features: pd.DataFrame | None, names: FigureNames, folder: Path
) -> list[_Drawing]:
    """Embed the features, and write the points as CSV."""
    if features is None:
        return []
    eval_set = result.eval_set
    rows = eval_set.rows["image_id"].astype(str)
    ids = features.index.intersection(pd.Index(rows))
    if not MIN_EMBEDDED <= len(ids) <= MAX_EMBEDDED:
        return []
    points = embed(features.loc[ids].to_numpy(), seed=result.seed)
    write_table_csv(
        pd.DataFrame({"image_id": ids, "x": points[:, 0], "y": points[:, 1]}),
        folder / "embedding.csv",
    )
    at = pd.Index(rows).get_indexer(ids)
    n_labels = (eval_set.labels[at] == 1).sum(axis=1)
    groups = np.where(n_labels == 1, eval_set.labels[at].argmax(axis=1), len(names.names))
    shown = [*names.names, translate("figure|several or no label", names.language)]
    wrong = ~eval_set.is_correct[at]
    return [
        _Drawing(
            "embedding",
            lambda: draw_embedding(points, groups, shown, wrong, language=names.language),
        ),
    ]


def _area_texts(
    eval_set: EvalSet, scores: pd.DataFrame, score: str, names: FigureNames
) -> list[AreaText]:
    return [
        AreaText(name, _area_text(score_of(scores, score, label_id), names.language))
        for name, label_id in zip(names.names, eval_set.taxonomy.label_ids, strict=True)
    ]


def _area_text(found: Score, language: Language) -> str:
    """Return an area and its interval in the language of the figure."""
    _ = partial(translate, language=language)
    if math.isnan(found.value):
        return _("figure|not defined")
    if math.isnan(found.low) or math.isnan(found.high):
        return f"{found.value:.3f} ({_('figure|interval not defined')})"
    ends = _("figure|{low} to {high}", low=f"{found.low:.3f}", high=f"{found.high:.3f}")
    return f"{found.value:.3f} ({ends}{MARK * found.is_rule_of_three})"


def _probabilities_of(names: FigureNames, *, scaled: bool) -> str:
    if scaled:
        return translate("figure|after temperature scaling", names.language)
    return translate("figure|uncalibrated", names.language)
