"""Effect of stain normalisation on a cohort: t-SNE maps, and prediction of the source from pixels.

t-SNE is shown as in Fig. 8 of the paper; the measure that counts is how well the slide or scanner
can still be predicted from the pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["StainCheck", "StainPart", "compare_by_stain", "with_maps"]

FloatArray = npt.NDArray[np.float64]

MIN_IMAGES_FOR_EMBEDDING = 8
N_NEIGHBOURS = 5
N_PERMUTATIONS = 20
MAX_FOLDS = 5


@dataclass(frozen=True)
class StainEmbedding:
    """A t-SNE map, shape (n, 2), and the trustworthiness of its neighbourhoods, 0 to 1."""

    points: FloatArray
    trustworthiness: float


@dataclass(frozen=True)
class SourcePrediction:
    """Accuracy of predicting an image's source from its pixels."""

    column: str
    """The predicted column of the manifest."""
    grouped_by: str
    """The column whose values never occur on both sides of a fold."""
    n_classes: int
    n_images: int
    before: float
    """Balanced accuracy."""
    after: float
    chance: float
    """95th percentile of the balanced accuracy on shuffled labels."""


@dataclass(frozen=True)
class StainPart:
    """Results for the images of one stain."""

    stain: str
    """Empty where the manifest names none."""
    rows: npt.NDArray[np.int64]
    """Rows of the table, shape (n,)."""
    before: StainEmbedding | None
    """None with too few images for a map."""
    after: StainEmbedding | None
    prediction: SourcePrediction | None
    why_no_prediction: str


@dataclass(frozen=True)
class StainCheck:
    """A cohort before and after normalisation."""

    table: pd.DataFrame
    """One row per image: ids, measures, status, position on the maps before and after."""
    column: str
    """The column predicted from the pixels."""
    parts: tuple[StainPart, ...]
    """By stain: over several stains, the stain alone would predict the slide."""
    unreadable: tuple[str, ...]
    """One sentence per image left out."""
    paths: tuple[tuple[Path, Path], ...]
    """Files before and after, in the order of `table`."""
    targets: Mapping[str, Path]
    """The image that each stain's target was fitted on, where it still exists."""


def compare_by_stain(
    table: pd.DataFrame,
    before: FloatArray,
    after: FloatArray,
    *,
    predict: str,
    seed: int,
) -> tuple[StainPart, ...]:
    """Map the images of each stain and predict their source, before and after normalisation.

    Parameters
    ----------
    table : DataFrame
        Columns ``image_id``, ``patient_id``, ``stain`` and `predict`; one row per image.
    before, after : ndarray of float64, shape (n, D)
        `glomerulab.stain.features.image_features` of the images.
    seed : int
        For t-SNE, folds and permutations.
    """
    stains = table["stain"].astype("string").fillna("").to_numpy(dtype=object)
    parts = []
    for stain in sorted(set(stains)):
        rows = np.flatnonzero(stains == stain)
        one, other = before[rows], after[rows]
        prediction = _predict_source(
            one, other, table.iloc[rows].reset_index(drop=True), predict, seed
        )
        parts.append(
            StainPart(
                stain=stain,
                rows=rows,
                before=_embed(one, seed),
                after=_embed(other, seed),
                prediction=prediction if isinstance(prediction, SourcePrediction) else None,
                why_no_prediction=prediction if isinstance(prediction, str) else "",
            )
        )
    return tuple(parts)


def with_maps(table: pd.DataFrame, parts: tuple[StainPart, ...]) -> pd.DataFrame:
    """Add the position of each image on the maps of its stain."""
    maps = np.full((len(table), 4), np.nan)
    for part in parts:
        for column, embedding in ((0, part.before), (2, part.after)):
            if embedding is not None:
                maps[part.rows, column : column + 2] = embedding.points
    names = ["tsne_x_before", "tsne_y_before", "tsne_x_after", "tsne_y_after"]
    return pd.concat([table, pd.DataFrame(maps, columns=names)], axis="columns")


def _embed(features: FloatArray, seed: int) -> StainEmbedding | None:
    if len(features) < MIN_IMAGES_FOR_EMBEDDING:
        return None
    scaled = StandardScaler().fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3.0)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(scaled)
    n_neighbours = min(N_NEIGHBOURS, len(features) // 2 - 1)
    score = trustworthiness(scaled, points, n_neighbors=n_neighbours)
    return StainEmbedding(np.asarray(points, dtype=np.float64), float(score))


def _predict_source(
    before: FloatArray, after: FloatArray, table: pd.DataFrame, column: str, seed: int
) -> SourcePrediction | str:
    """Predict a column by cross-validated logistic regression, or return why that is impossible."""
    # Crops of one slide or patient are alike and must not occur on both sides of a fold, unless
    # the slide or patient is itself predicted.
    by_patient = column not in {"patient_id", "slide_id"} and table["patient_id"].notna().all()
    groups = table["patient_id" if by_patient else "image_id"].to_numpy(dtype=object)
    labels = table[column].astype("string").fillna("").to_numpy(dtype=object)
    n_groups = pd.Series(groups).groupby(labels).nunique()
    eligible = n_groups.index[(n_groups >= 2) & (n_groups.index != "")]
    unit = "patients" if by_patient else "images"
    if len(eligible) < 2:
        return f"fewer than two values of {column} have two {unit} or more"
    used = np.isin(labels, eligible)
    labels, groups = labels[used], groups[used]
    n_folds = int(min(MAX_FOLDS, n_groups[eligible].min()))
    folds = StratifiedGroupKFold(n_splits=max(n_folds, 2), shuffle=True, random_state=seed)
    rng = np.random.default_rng(seed)

    def score(features: FloatArray, classes: npt.NDArray[np.object_]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        called = cross_val_predict(model, features, classes, groups=groups, cv=folds)
        return float(balanced_accuracy_score(classes, called))

    shuffled = [score(after[used], _shuffled(labels, groups, rng)) for _ in range(N_PERMUTATIONS)]
    return SourcePrediction(
        column=column,
        grouped_by="patient_id" if by_patient else "image_id",
        n_classes=len(eligible),
        n_images=int(used.sum()),
        before=score(before[used], labels),
        after=score(after[used], labels),
        chance=float(np.quantile(shuffled, 0.95)),
    )


def _shuffled(
    labels: npt.NDArray[np.object_], groups: npt.NDArray[np.object_], rng: np.random.Generator
) -> npt.NDArray[np.object_]:
    """Shuffle the labels, group by group where every group has one label."""
    first = pd.Series(labels).groupby(groups).first()
    if pd.Series(labels).groupby(groups).nunique().max() > 1:
        return rng.permutation(labels)
    by_group = dict(zip(first.index, rng.permutation(first.to_numpy()), strict=True))
    return np.array([by_group[group] for group in groups], dtype=object)
