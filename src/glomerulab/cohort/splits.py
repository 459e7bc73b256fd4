"""Divide a cohort into train, validation and test, or into folds, without letting anyone leak.

Whole groups of images go to one part, so balanced on labels and stains as the groups allow. No
image is opened here.
"""

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.cohort.balance import balanced_parts
from glomerulab.cohort.grouping import By, group_rows
from glomerulab.cohort.leakage import patients_in_several_parts
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.schema import SPLITS
from glomerulab.errors import ManifestError

__all__ = [
    "assign_folds",
    "parts_table",
    "split_by_image",
    "split_by_patient",
    "split_warnings",
]

FloatArray = npt.NDArray[np.float64]

MINOR_WEIGHT = 0.5
"""Of stains and of pairs of labels, beside 1 of images, groups and labels."""


def split_by_patient(
    manifest: Manifest, *, ratios: tuple[float, float, float] = (6, 2, 2), seed: int = 0
) -> Manifest:
    """Divide a cohort so that all images of a patient are in one part.

    Parameters
    ----------
    manifest : Manifest
    ratios : tuple of float, default (6, 2, 2)
        Train, validation, test. A part of ratio 0 stays empty; train cannot be 0.
    seed : int, default 0
        Same images, ratios and seed: same split, whatever the order of the rows.

    Returns
    -------
    Manifest
        With `split` filled; all else as before.

    Raises
    ------
    ManifestError
        If an image has no patient, or there are fewer patients than parts.
    ValueError
        If the ratios cannot be.
    """
    return _split(manifest, by="patient", ratios=ratios, seed=seed)


def split_by_image(
    manifest: Manifest, *, ratios: tuple[float, float, float] = (6, 2, 2), seed: int = 0
) -> Manifest:
    """Divide a cohort image by image: the paper's protocol, which lets patients leak.

    Images made of one another (`parent_id`) still stay together. `split_warnings` says how many
    patients stand in several parts; scores on such a test part are optimistic.

    Parameters
    ----------
    manifest : Manifest
    ratios : tuple of float, default (6, 2, 2)
    seed : int, default 0

    Returns
    -------
    Manifest

    Raises
    ------
    ManifestError
        If there are fewer images than parts.
    ValueError
        If the ratios cannot be.
    """
    return _split(manifest, by="image", ratios=ratios, seed=seed)


def assign_folds(
    manifest: Manifest, *, n_folds: int, by: By = "patient", seed: int = 0
) -> Manifest:
    """Give every image a fold, the folds being of about equal size and make-up.

    Parameters
    ----------
    manifest : Manifest
        Images whose `split` is "test" stay out of every fold: they are for the very end.
    n_folds : int
        At least 2.
    by : {"patient", "image"}, default "patient"
    seed : int, default 0

    Returns
    -------
    Manifest
        With `fold` filled from 0 to `n_folds` - 1, and empty in the test part.

    Raises
    ------
    ManifestError
        If there are fewer patients (or images) than folds, or an image has no patient.
    ValueError
        If `n_folds` is below 2.
    """
    if n_folds < 2:
        raise ValueError(f"n_folds must be at least 2, got {n_folds}")
    table = manifest.table.copy()
    inside = (table["split"] != "test").fillna(value=True).to_numpy(dtype=np.bool_)
    part = _parts(manifest, inside, by, np.full(n_folds, 1 / n_folds), seed=seed)
    table["fold"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table.loc[inside, "fold"] = part
    return manifest.with_table(table)


def split_warnings(manifest: Manifest, *, column: str = "split") -> list[str]:
    """Say what a reader of scores on this split must know.

    Parameters
    ----------
    manifest : Manifest
        With `column` filled.
    column : str, default "split"
        "split" or "fold"; beside folds the test part counts as one more part.

    Returns
    -------
    list of str
        Sentences: patients that stand in several parts, labels that a part lacks.
    """
    table, words = manifest.table, ("parts", "part")
    part = table[column].astype("string")
    if column == "fold":
        words = ("folds", "fold")
        part = part.fillna(table["split"].where(table["split"] == "test"))
    warnings = []
    shared = len(patients_in_several_parts(table.assign(**{column: part}), column))
    if shared:
        held_out = "the test part" if column == "split" else "a fold that is held out"
        warnings.append(
            f"{shared} of {table['patient_id'].nunique()} patients have images in several "
            f"{words[0]}: the model sees patients of {held_out} in training, and scores will be optimistic"
        )
    if table["patient_id"].isna().any():
        n_unknown = int(table["patient_id"].isna().sum())
        warnings.append(
            f"{n_unknown} images have no patient_id: nobody can tell whether their patients "
            f"stand in several {words[0]}"
        )
    return warnings + _absent_labels(manifest, column)


def _absent_labels(manifest: Manifest, column: str) -> list[str]:
    """Name the labels that no image of a part shows."""
    table = manifest.table
    parts = SPLITS if column == "split" else sorted(table[column].dropna().unique())
    warnings = []
    for part in parts:
        rows = table[(table[column] == part).fillna(value=False)]
        absent = [i for i in manifest.taxonomy.label_ids if not (rows[i] == 1).any()]
        if len(rows) and absent:
            place = f"the {part} part" if column == "split" else f"fold {part}"
            warnings.append(f"no image of {place} shows: {', '.join(absent)}")
    return warnings


def parts_table(manifest: Manifest, *, column: str = "split") -> pd.DataFrame:
    """Count patients, images and labels in each part.

    Parameters
    ----------
    manifest : Manifest
    column : str, default "split"
        "split" or "fold".

    Returns
    -------
    DataFrame
        One row per part that is there (index), in order; columns patients, images, then for each
        label the number of images that show it.
    """
    table = manifest.table
    parts = SPLITS if column == "split" else sorted(table[column].dropna().unique())
    rows = {}
    for part in parts:
        inside = table[(table[column] == part).fillna(value=False)]
        if len(inside):
            counts = {i: int((inside[i] == 1).sum()) for i in manifest.taxonomy.label_ids}
            patients = int(inside["patient_id"].nunique())
            rows[part] = {"patients": patients, "images": len(inside)} | counts
    return pd.DataFrame.from_dict(rows, orient="index")


def _split(
    manifest: Manifest, *, by: By, ratios: tuple[float, float, float], seed: int
) -> Manifest:
    wanted = np.array(ratios, dtype=np.float64)
    if wanted.shape != (3,) or not np.isfinite(wanted).all() or (wanted < 0).any():
        raise ValueError(f"ratios must be three numbers of at least 0, got {ratios}")
    if wanted[0] == 0:
        raise ValueError(f"the ratio of the train part must be above 0, got {ratios}")
    names = [name for name, ratio in zip(SPLITS, wanted, strict=True) if ratio > 0]
    shares = wanted[wanted > 0] / wanted.sum()
    table = manifest.table.copy()
    part = _parts(manifest, np.ones(len(table), dtype=np.bool_), by, shares, seed=seed)
    table["split"] = pd.array([names[place] for place in part], dtype="string")
    return manifest.with_table(table)


def _parts(
    manifest: Manifest, inside: npt.NDArray[np.bool_], by: By, shares: FloatArray, *, seed: int
) -> npt.NDArray[np.int64]:
    """Return the part of each row that is inside."""
    group = np.unique(group_rows(manifest, by)[inside], return_inverse=True)[1]
    n_groups = int(group.max()) + 1 if len(group) else 0
    if n_groups < len(shares):
        or_by_image = ", or split by image" if by == "patient" else ""
        raise ManifestError(
            f"{n_groups} {by}(s) cannot fill {len(shares)} parts; bring more or ask for fewer"
            + or_by_image,
            where=manifest.location,
        )
    per_row, weights = _countables(manifest, inside)
    counts = np.zeros((n_groups, per_row.shape[1]))
    np.add.at(counts, group, per_row)
    counts = np.column_stack([np.ones(n_groups), counts])
    part_of_group = balanced_parts(counts, shares, np.append(1.0, weights), seed=seed)
    return part_of_group[group]


def _countables(manifest: Manifest, inside: npt.NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return what is to be balanced, shape (rows, columns), and how much each column matters."""
    labels = manifest.labels()[inside]
    shown = np.nan_to_num(labels)
    columns = [np.ones(len(labels)), *shown.T]
    minor = [
        shown[:, first] * shown[:, second]
        for first, second in combinations(range(shown.shape[1]), 2)
    ]
    known = ~np.isnan(labels)
    if not known.all():
        columns += list(known.astype(np.float64).T)
    stain = manifest.table["stain"][inside].astype(object)
    minor += [(stain == name).to_numpy(dtype=np.float64) for name in sorted(set(stain.dropna()))]
    weights = np.repeat([1.0, MINOR_WEIGHT], [len(columns), len(minor)])
    return np.column_stack(columns + minor), weights
