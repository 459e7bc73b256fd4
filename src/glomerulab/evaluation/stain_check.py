"""What stain normalisation did to a cohort: spread, structure, glass, and what still tells slides.

Reads two manifests and their pixels. t-SNE is shown as the paper shows it (Fig. 8), but decides
nothing: that is left to how well the slide or scanner can still be predicted from the pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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

from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import ImageFileError, ManifestError, StainError
from glomerulab.images import read_image
from glomerulab.runtime.parallel import map_outcomes
from glomerulab.runtime.progress import Track, silent
from glomerulab.stain.features import image_features, measure_pair, shrunk
from glomerulab.stain.reference import read_reference

__all__ = ["Embedding", "SourcePrediction", "StainCheck", "StainPart", "check_stains"]

FloatArray = npt.NDArray[np.float64]

MIN_IMAGES_FOR_EMBEDDING = 8
N_NEIGHBOURS = 5
N_PERMUTATIONS = 20
MAX_FOLDS = 5


@dataclass(frozen=True)
class Embedding:
    """A t-SNE map, shape (n, 2), and how far its neighbourhoods can be trusted (0 to 1)."""

    points: FloatArray
    trustworthiness: float


@dataclass(frozen=True)
class SourcePrediction:
    """How well the source of an image is told from its pixels."""

    column: str
    """The manifest's column that is predicted."""
    grouped_by: str
    """What never stands on both sides of a fold."""
    n_classes: int
    n_images: int
    before: float
    """Balanced accuracy."""
    after: float
    chance: float
    """95th percentile of the balanced accuracy on labels dealt out at random."""


@dataclass(frozen=True)
class StainPart:
    """What holds for the images of one stain together."""

    stain: str
    """Empty where the manifest names none."""
    places: npt.NDArray[np.int64]
    """Rows of the table, shape (n,)."""
    before: Embedding | None
    """None where there are too few images for a map."""
    after: Embedding | None
    prediction: SourcePrediction | None
    why_no_prediction: str


@dataclass(frozen=True)
class StainCheck:
    """Everything the page shows."""

    table: pd.DataFrame
    """One row per image: ids, measures, status, place on the maps before and after."""
    column: str
    """What was to be told from the pixels."""
    parts: tuple[StainPart, ...]
    """By stain: a slide has one, so that over several the stain alone would tell it."""
    unreadable: tuple[str, ...]
    """One sentence per image left out."""
    paths: tuple[tuple[Path, Path], ...]
    """Files before and after, in the order of `table`."""
    targets: Mapping[str, Path]
    """By stain, the image it was brought to the colours of, where that is still there."""


@dataclass(frozen=True)
class _Pair:
    image_id: str
    before: Path
    after: Path


@dataclass(frozen=True)
class _Measured:
    pair: _Pair
    measures: dict[str, float]
    before: FloatArray
    after: FloatArray


def check_stains(
    before: Manifest,
    after: Manifest,
    *,
    predict: str = "slide_id",
    seed: int = 0,
    n_workers: int = 1,
    track: Track = silent,
) -> StainCheck:
    """Compare a cohort before and after normalisation, image by image and as a whole.

    Parameters
    ----------
    before, after : Manifest
        Matched by ``image_id``.
    predict : str, default "slide_id"
        Column whose value is predicted from the pixels: slide, scanner, site.
    seed : int, default 0
        Of t-SNE, folds and permutations.
    n_workers : int, default 1
        Processes.
    track : Track, default silent
        Shows the progress.

    Returns
    -------
    StainCheck

    Raises
    ------
    ManifestError
        If the manifests share no image, or `predict` is no column.
    """
    pairs, rows = _matched(before, after, predict)
    measured, unreadable = _measure_all(pairs, n_workers, track)
    if not measured:
        raise ManifestError("no image could be read", where=str(after.folder))
    table = rows.loc[[one.pair.image_id for one in measured]].reset_index()
    measures = pd.DataFrame([one.measures for one in measured])
    table = pd.concat([table, measures], axis="columns")
    features_before = np.stack([one.before for one in measured])
    features_after = np.stack([one.after for one in measured])
    stains = table["stain"].astype("string").fillna("").to_numpy(dtype=object)
    parts = tuple(
        _part(
            stain,
            np.flatnonzero(stains == stain),
            features_before,
            features_after,
            table,
            predict=predict,
            seed=seed,
        )
        for stain in sorted(set(stains))
    )
    return StainCheck(
        table=_with_maps(table, parts),
        column=predict,
        parts=parts,
        unreadable=unreadable,
        paths=tuple((one.pair.before, one.pair.after) for one in measured),
        targets=_target_images(after),
    )


def _matched(before: Manifest, after: Manifest, predict: str) -> tuple[list[_Pair], pd.DataFrame]:
    if predict not in before.table:
        known = ", ".join(before.table.columns)
        raise ManifestError(f"no column {predict!r}; there are: {known}", where=str(before.folder))
    old = dict(zip(before.table["image_id"], before.image_paths(), strict=True))
    new = dict(zip(after.table["image_id"], after.image_paths(), strict=True))
    shared = [image_id for image_id in old if image_id in new]
    if not shared:
        raise ManifestError("shares no image_id with the manifest before", where=str(after.folder))
    columns = list(dict.fromkeys(["patient_id", "slide_id", "stain", predict]))
    rows = before.table.set_index("image_id")[columns].loc[shared].copy()
    if "stain_status" in after.table:
        rows["stain_status"] = after.table.set_index("image_id")["stain_status"].loc[shared]
    return [_Pair(image_id, old[image_id], new[image_id]) for image_id in shared], rows


def _target_images(after: Manifest) -> dict[str, Path]:
    """Find the images that the targets were fitted on; a mean of several has none."""
    found: dict[str, Path] = {}
    if "stain_target" not in after.table:
        return found
    for name in sorted(set(after.table["stain_target"].dropna()) - {""}):
        try:
            target = read_reference(after.folder / name)
            read_image(Path(target.source))
        except (StainError, ImageFileError):  # moved or deleted since: the check needs none of it
            continue
        found[target.stain] = Path(target.source)
    return found


def _measure_all(
    pairs: Sequence[_Pair], n_workers: int, track: Track
) -> tuple[list[_Measured], tuple[str, ...]]:
    """Measure every pair; return those that could be, and a sentence for each that could not."""
    measured: list[_Measured] = []
    unreadable: list[str] = []
    for outcome in track(
        map_outcomes(_measure, pairs, n_workers=n_workers), "Measuring", len(pairs)
    ):
        if outcome.value is None:
            unreadable.append(f"{outcome.item.image_id}: {outcome.error}")
        else:
            measured.append(_Measured(outcome.item, *outcome.value))
    measured.sort(key=lambda one: one.pair.image_id)  # whatever order the processes ended in
    return measured, tuple(unreadable)


def _measure(pair: _Pair) -> tuple[dict[str, float], FloatArray, FloatArray]:
    before, after = read_image(pair.before), read_image(pair.after)
    if before.shape != after.shape:
        raise ManifestError(
            f"is {after.shape[1]} x {after.shape[0]} px after and {before.shape[1]} x "
            f"{before.shape[0]} px before",
            where=str(pair.after),
        )
    before, after = shrunk(before), shrunk(after)
    return asdict(measure_pair(before, after)), image_features(before), image_features(after)


def _part(
    stain: str,
    places: npt.NDArray[np.int64],
    before: FloatArray,
    after: FloatArray,
    table: pd.DataFrame,
    *,
    predict: str,
    seed: int,
) -> StainPart:
    one, other = before[places], after[places]
    rows = table.iloc[places].reset_index(drop=True)
    prediction = _predict_source(one, other, rows, predict, seed)
    return StainPart(
        stain=stain,
        places=places,
        before=_embed(one, seed),
        after=_embed(other, seed),
        prediction=prediction if isinstance(prediction, SourcePrediction) else None,
        why_no_prediction=prediction if isinstance(prediction, str) else "",
    )


def _with_maps(table: pd.DataFrame, parts: tuple[StainPart, ...]) -> pd.DataFrame:
    """Add the place of each image on the maps of its stain."""
    maps = np.full((len(table), 4), np.nan)
    for part in parts:
        for column, embedding in ((0, part.before), (2, part.after)):
            if embedding is not None:
                maps[part.places, column : column + 2] = embedding.points
    names = ["tsne_x_before", "tsne_y_before", "tsne_x_after", "tsne_y_after"]
    return pd.concat([table, pd.DataFrame(maps, columns=names)], axis="columns")


def _embed(features: FloatArray, seed: int) -> Embedding | None:
    if len(features) < MIN_IMAGES_FOR_EMBEDDING:
        return None
    scaled = StandardScaler().fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3.0)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(scaled)
    n_neighbours = min(N_NEIGHBOURS, len(features) // 2 - 1)
    score = trustworthiness(scaled, points, n_neighbors=n_neighbours)
    return Embedding(np.asarray(points, dtype=np.float64), float(score))


def _predict_source(
    before: FloatArray, after: FloatArray, table: pd.DataFrame, column: str, seed: int
) -> SourcePrediction | str:
    """Predict a column by logistic regression across folds, or say why that cannot be done."""
    # The crops of one slide, or of one patient, are alike: they must not stand on both sides,
    # unless slide or patient is itself what is predicted.
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

    def score(features: FloatArray, answers: npt.NDArray[np.object_]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        called = cross_val_predict(model, features, answers, groups=groups, cv=folds)
        return float(balanced_accuracy_score(answers, called))

    shuffled = [score(after[used], _dealt_out(labels, groups, rng)) for _ in range(N_PERMUTATIONS)]
    return SourcePrediction(
        column=column,
        grouped_by="patient_id" if by_patient else "image_id",
        n_classes=len(eligible),
        n_images=int(used.sum()),
        before=score(before[used], labels),
        after=score(after[used], labels),
        chance=float(np.quantile(shuffled, 0.95)),
    )


def _dealt_out(
    labels: npt.NDArray[np.object_], groups: npt.NDArray[np.object_], rng: np.random.Generator
) -> npt.NDArray[np.object_]:
    """Shuffle the labels, by whole groups where every group has one label."""
    first = pd.Series(labels).groupby(groups).first()
    if pd.Series(labels).groupby(groups).nunique().max() > 1:
        return rng.permutation(labels)
    dealt = dict(zip(first.index, rng.permutation(first.to_numpy()), strict=True))
    return np.array([dealt[group] for group in groups], dtype=object)
