"""Error analysis: accuracy by subgroup, the most confident errors, and a map of the features."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from glomerulab.evaluation.eval_set import EvalSet
from glomerulab.evaluation.intervals import MIN_RESAMPLES, mean_interval

__all__ = ["MAX_EMBEDDED", "MIN_EMBEDDED", "WorstError", "embed", "worst_errors"]

SUBGROUP_COLUMNS = ("stain", "agreement", "slide_id", "patient_id")
"""Columns that every report is broken down by. ``agreement`` is that of the annotators on the
image's labels: a share from 0 to 1, or text."""
UNKNOWN = "unknown"
AGREEMENT_LEVELS = ("all agree", "most agree", "half or fewer agree")

MIN_EMBEDDED = 10
"""With fewer images a map would be chance."""
MAX_EMBEDDED = 3000
"""More images take minutes, and their points hide each other."""
MAX_DIMENSIONS = 50
PERPLEXITY = 30.0


@dataclass(frozen=True, slots=True)
class WorstError:
    """A wrongly called image."""

    image_id: str
    true_label: str
    """Display names of the true labels."""
    called: str
    """Display names of the called labels."""
    confidence: float
    """Probability of the wrong call, from 0 to 1."""
    label_id: str
    """The label that is wrong: called though absent, or missed though present."""


def subgroup_table(
    eval_set: EvalSet, column: str, *, n_resamples: int = MIN_RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Count images and correct calls by the values of a column."""
    if column not in eval_set.rows:
        raise ValueError(f"no column {column!r} in the predictions")
    groups = _groups(eval_set.rows[column])
    rows = []
    for group in groups.drop_duplicates():
        inside = (groups == group).to_numpy(dtype=bool)
        right, patients = eval_set.is_correct[inside], eval_set.patients[inside]
        interval = mean_interval(right, patients, n_resamples=n_resamples, seed=seed)
        rows.append(
            {
                "column": column,
                "group": str(group),
                "n_images": int(inside.sum()),
                "n_patients": len(np.unique(patients)),
                "n_right": int(right.sum()),
                "share_right": float(right.mean()),
                "low": interval.low,
                "high": interval.high,
                "interval_method": interval.method,
            }
        )
    order = ["n_images", "group"]
    return pd.DataFrame(rows).sort_values(order, ascending=[False, True], ignore_index=True)


def worst_errors(eval_set: EvalSet, *, n_most: int = 12) -> list[WorstError]:
    """Return the wrongly called images, the most confident errors first.

    At most `n_most`; ties stay in the order of the table.
    """
    truth = eval_set.labels == 1
    wrong_label = ~np.isnan(eval_set.labels) & (eval_set.calls != truth)
    of_call = np.where(eval_set.calls, eval_set.probabilities, 1.0 - eval_set.probabilities)
    if eval_set.head == "softmax":
        wrong_label &= eval_set.calls  # one error per image: the class that was called
    by_label = np.where(wrong_label, of_call, -1.0)
    confidence = by_label.max(axis=1)
    order = np.argsort(-confidence, kind="stable")[:n_most]
    names = [label.name for label in eval_set.taxonomy.labels]
    return [
        WorstError(
            image_id=str(eval_set.rows["image_id"].iloc[row]),
            true_label=_joined(names, truth[row]),
            called=_joined(names, eval_set.calls[row]),
            confidence=float(confidence[row]),
            label_id=eval_set.taxonomy.label_ids[int(by_label[row].argmax())],
        )
        for row in order
        if confidence[row] >= 0
    ]


def embed(features: npt.NDArray[np.floating], *, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return a t-SNE map of a model's features; only neighbourhoods in it have a meaning.

    Parameters
    ----------
    features : ndarray of float, shape (n, D)
        Finite; at least `MIN_EMBEDDED` rows.
    seed : int, default 0

    Returns
    -------
    ndarray of float64, shape (n, 2)

    Raises
    ------
    ValueError
        If there are too few images, or a feature is not finite.

    Notes
    -----
    van der Maaten & Hinton 2008, after a reduction to 50 principal components as there.
    """
    if len(features) < MIN_EMBEDDED:
        raise ValueError(f"at least {MIN_EMBEDDED} images are needed, got {len(features)}")
    values = np.asarray(features, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("features must be finite")
    n_components = min(MAX_DIMENSIONS, *values.shape)
    reduced = PCA(n_components, random_state=seed).fit_transform(values)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    init = "pca" if n_components >= 2 else "random"
    tsne = TSNE(perplexity=perplexity, init=init, random_state=seed)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)


def _groups(cells: pd.Series) -> pd.Series:
    """Return the group of each image; shares of agreement become levels."""
    text = cells.astype("string")
    shares = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    is_share = (shares >= 0) & (shares <= 1)
    if cells.name == "agreement" and is_share.any():
        levels = np.select([shares >= 1, shares > 0.5, shares >= 0], AGREEMENT_LEVELS, default="")
        text = text.mask(is_share, pd.Series(levels, index=text.index, dtype="string"))
    return text.fillna(UNKNOWN)


def _joined(names: list[str], flags: npt.NDArray[np.bool_]) -> str:
    chosen = [name for name, flag in zip(names, flags, strict=True) if flag]
    return " + ".join(chosen) or "none"
