"""How much the scores of a cross-validation vary between its folds and repeats."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.scores import point_scores

__all__ = ["fold_scores", "fold_variation", "repeated_eval_sets"]


def repeated_eval_sets(run: RunTables, split: str) -> tuple[EvalSet, ...]:
    """Return the images of a split with the predictions of each repeat, the first one first."""
    return tuple(
        replace(
            eval_set_of_split(table, run.taxonomy, head=run.head, split=split),
            has_probabilities=run.has_probabilities,
        )
        for table in (run.predictions, *run.repeats)
    )


def fold_scores(run: RunTables, split: str = "test") -> pd.DataFrame:
    """Return the overall scores of every fold on the images that it held out.

    Returns
    -------
    DataFrame
        One row per repeat and fold: ``repeat`` (from 1), ``fold`` (from 0), ``n_images``,
        ``n_patients``, then one column per score; NaN where a score is not defined. Empty for a
        run that is no cross-validation.
    """
    return pd.DataFrame(list(_rows(run, split)))


def fold_variation(run: RunTables, split: str = "test") -> pd.DataFrame:
    """Return mean and standard deviation of the overall scores over folds and over repeats.

    Returns
    -------
    DataFrame
        One row per score: ``score``, ``n_folds`` (with the score defined), ``mean_of_folds``,
        ``sd_of_folds``, ``n_repeats``, ``mean_of_repeats``, ``sd_of_repeats`` (of the score over
        all images of a repeat; NaN with one repeat). Empty as `fold_scores`.
    """
    folds = fold_scores(run, split)
    if folds.empty:
        return folds
    repeats = [point_scores(one) for one in repeated_eval_sets(run, split)]
    rows = []
    for score in repeats[0]:
        of_folds = folds[score].dropna()
        of_repeats = np.array([one[score] for one in repeats])
        rows.append(
            {
                "score": score,
                "n_folds": len(of_folds),
                "mean_of_folds": of_folds.mean(),
                "sd_of_folds": of_folds.std(),
                "n_repeats": len(of_repeats),
                "mean_of_repeats": of_repeats.mean(),
                "sd_of_repeats": of_repeats.std(ddof=1) if len(of_repeats) > 1 else np.nan,
            }
        )
    return pd.DataFrame(rows)


def _rows(run: RunTables, split: str) -> Iterator[dict[str, object]]:
    for repeat, table in enumerate((run.predictions, *run.repeats), 1):
        if "fold" not in table:
            return
        for fold, rows in table.groupby("fold"):
            try:
                held_out = eval_set_of_split(rows, run.taxonomy, head=run.head, split=split)
            except PredictionsError:  # no image of this fold has a usable label
                continue
            counts = {"n_images": held_out.n_images, "n_patients": held_out.n_patients}
            yield {"repeat": repeat, "fold": int(str(fold)), **counts, **point_scores(held_out)}
