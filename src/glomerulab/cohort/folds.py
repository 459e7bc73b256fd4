"""The folds of a cross-validation as splits: one fold is held out, the rest is for training."""

import numpy as np
import pandas as pd

from glomerulab.cohort.leakage import ORIGINS
from glomerulab.cohort.manifest import Manifest
from glomerulab.cohort.splits import assign_parts
from glomerulab.errors import ManifestError, TrainingError

__all__ = ["check_folds", "fold_split"]


def fold_split(
    manifest: Manifest, fold: int, *, validation_share: float = 0.0, seed: int = 0
) -> Manifest:
    """Return the manifest of one fold, with `split` filled.

    Parameters
    ----------
    manifest : Manifest
        With `fold` filled; images without a fold are left out.
    fold : int
        Its originals are the test part.
    validation_share : float, default 0.0
        Share of the other patients (of the other images where one has no patient) that are the
        validation part; 0 makes none.
    seed : int, default 0

    Returns
    -------
    Manifest
        Augmented copies stay in the training part only, and only if no image that they show is in
        another part.
    """
    inside = manifest.with_table(manifest.table[manifest.table["fold"].notna()])
    table = inside.table.copy()
    is_test = (table["fold"] == fold).to_numpy(dtype=np.bool_)
    split = np.where(is_test, "test", "train").astype(object)
    if validation_share > 0:
        by = "patient" if table["patient_id"].notna().all() else "image"
        shares = np.array([1 - validation_share, validation_share])
        part = assign_parts(inside, ~is_test, by, shares, seed=seed)
        split[np.flatnonzero(~is_test)[part == 1]] = "validation"
    table["split"] = pd.array(split, dtype="string")
    return inside.with_table(table[~_is_misplaced_copy(table)])


def check_folds(manifest: Manifest) -> list[str]:
    """Check that every label remains in training, and return what limits the folds' scores.

    Parameters
    ----------
    manifest : Manifest
        With `fold` filled.

    Raises
    ------
    TrainingError
        If a label occurs in one fold only, so that one training would lack it.
    ManifestError
        If there are fewer than two folds.
    """
    table = manifest.table[manifest.table["fold"].notna()]
    folds = sorted(table["fold"].unique())
    if len(folds) < 2:
        raise ManifestError(
            f"the column fold names {len(folds)} fold(s), and a cross-validation needs two; run "
            "`glomerulab split --folds 5`, or empty the column and give --folds",
            where=manifest.location,
        )
    notes = []
    for label_id in manifest.taxonomy.label_ids:
        shown_in = [
            fold for fold in folds if (table.loc[table["fold"] == fold, label_id] == 1).any()
        ]
        if len(shown_in) < 2:
            where = f"fold {shown_in[0]} only" if shown_in else "no fold"
            raise TrainingError(
                f"{label_id} is shown in {where}, so a model cannot learn it and be tested on it; "
                "take fewer folds or another --group, add images of it, or remove the label from "
                "the taxonomy",
                where=manifest.location,
            )
        absent = [str(fold) for fold in folds if fold not in shown_in]
        if absent:
            notes.append(
                f"no image of fold {', '.join(absent)} shows {label_id}: its scores there are not "
                "defined, and its score over all folds rests on the others"
            )
    return notes


def _is_misplaced_copy(table: pd.DataFrame) -> np.ndarray:
    """Mark the copies outside the training part, and those that show an image outside it."""
    part_of = dict(zip(table["image_id"], table["split"], strict=True))
    misplaced = (table["parent_id"].notna() & (table["split"] != "train")).to_numpy(dtype=np.bool_)
    for column in ORIGINS:
        if column in table:
            origin = table[column].map(part_of)
            misplaced |= (origin.notna() & (origin != "train")).to_numpy(dtype=np.bool_) & (
                table["parent_id"].notna().to_numpy(dtype=np.bool_)
            )
    return misplaced
