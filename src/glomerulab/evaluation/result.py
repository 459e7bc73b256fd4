"""All metrics of one run, computed from its tables."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.calibration import (
    CalibrationSummary,
    calibration_summary,
    fit_temperature,
    with_temperature,
)
from glomerulab.evaluation.comparison import delong_area
from glomerulab.evaluation.error_analysis import SUBGROUP_COLUMNS, subgroup_table
from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.evaluation.folds import fold_variation, repeated_eval_sets
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.scores import score_table
from glomerulab.evaluation.uncertainty import ConformalResult, conformal_result
from glomerulab.evaluation.warnings import EvaluationWarning, find_warnings

__all__ = ["EvaluationResult", "ValidationFit", "evaluate_run"]

CONFORMAL_COVERAGES = (0.8, 0.9, 0.95)
"""Stated coverages of the prediction sets in a report."""


@dataclass(frozen=True)
class ValidationFit:
    """Calibration fitted on the validation split and applied to the evaluated one."""

    n_images: int
    """Images that it was fitted on."""
    temperature: float
    scaled: EvalSet
    """The evaluated images with scaled probabilities."""
    calibration: CalibrationSummary
    """Of `scaled`."""
    conformal: tuple[ConformalResult, ...]
    by_fold: bool = False
    """Whether each fold was scaled by a temperature of the other folds, and `temperature` is that
    of all."""


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of one split of a run."""

    run: RunTables
    split: str
    n_resamples: int
    seed: int
    eval_set: EvalSet
    scores: pd.DataFrame
    """See `glomerulab.evaluation.scores.score_table`."""
    calibration: CalibrationSummary
    fitted: ValidationFit | None
    """None without another split to fit on."""
    subgroups: pd.DataFrame
    """See `glomerulab.evaluation.error_analysis.subgroup_table`; the tables are concatenated."""
    warnings: tuple[EvaluationWarning, ...]
    fold_variation: pd.DataFrame
    """See `glomerulab.evaluation.folds.fold_variation`; empty unless cross-validated."""
    delong: pd.DataFrame
    """ROC areas by DeLong (``label``, ``auc``, ``standard_error``, ``low``, ``high``); empty unless
    every image is of another known patient, since the method assumes independent images."""


def evaluate_run(
    run: RunTables,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    by: Sequence[str] = (),
    extra_warnings: Sequence[EvaluationWarning] = (),
    has_external_set: bool = False,
) -> EvaluationResult:
    """Compute all metrics of one split of a run.

    Parameters
    ----------
    split : str, default "test"
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0
        Of the resampling.
    by : sequence of str, default ()
        Columns of the manifest for subgroups, beside `SUBGROUP_COLUMNS`.
    extra_warnings : sequence of EvaluationWarning, default ()
        Limitations that the tables do not show.
    has_external_set : bool, default False
        Whether an external set is evaluated, now or besides.

    Raises
    ------
    PredictionsError
        If the split has no image with usable labels, or a column of `by` does not exist.
    """
    eval_set, *repeats = repeated_eval_sets(run, split)
    eval_set = _with_columns(eval_set, run, by)
    tables = [
        subgroup_table(eval_set, column, n_resamples=n_resamples, seed=seed)
        for column in dict.fromkeys((*SUBGROUP_COLUMNS, *by))
        if column in eval_set.rows and eval_set.rows[column].notna().any()
    ]
    scores = score_table(eval_set, repeats=repeats, n_resamples=n_resamples, seed=seed)
    warnings = [
        *extra_warnings,
        *find_warnings(run, eval_set, scores, has_external_set=has_external_set),
    ]
    return EvaluationResult(
        run=run,
        split=split,
        n_resamples=n_resamples,
        seed=seed,
        eval_set=eval_set,
        scores=scores,
        calibration=calibration_summary(eval_set),
        fitted=_fitted(run, eval_set, split),
        subgroups=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
        fold_variation=fold_variation(run, split),
        delong=_delong(eval_set),
        warnings=tuple(sorted(warnings, key=lambda warning: not warning.severe)),
    )


def _with_columns(eval_set: EvalSet, run: RunTables, by: Sequence[str]) -> EvalSet:
    """Add columns of the manifest to the rows."""
    table = run.manifest.table
    missing = [name for name in by if name not in table]
    if missing:
        raise PredictionsError(
            f"the manifest has no column {', '.join(missing)} for subgroups",
            where=str(run.folder / "manifest.csv"),
        )
    wanted = [name for name in ("agreement", *by) if name in table and name not in eval_set.rows]
    # An id of the external set may occur in the own cohort too; external rows come last.
    known = table.drop_duplicates("image_id", keep="last").set_index("image_id")
    rows = eval_set.rows.copy()
    for name in wanted:
        rows[name] = known.loc[rows["image_id"], name].to_numpy()
    return replace(eval_set, rows=rows)


def _delong(eval_set: EvalSet) -> pd.DataFrame:
    """Return DeLong areas, or nothing unless every image is of another known patient."""
    shared = eval_set.n_patients < eval_set.n_images
    if shared or eval_set.n_without_patient or not eval_set.has_probabilities:
        return pd.DataFrame()
    rows = []
    for k, label in enumerate(eval_set.taxonomy.label_ids):
        known = ~np.isnan(eval_set.labels[:, k])
        if min(eval_set.n_positive[k], eval_set.n_negative[k]) >= 2:
            area = delong_area(eval_set.labels[known, k], eval_set.probabilities[known, k])
            rows.append({"label": label, **asdict(area)})
    return pd.DataFrame(rows)


def _fitted(run: RunTables, eval_set: EvalSet, split: str) -> ValidationFit | None:
    """Fit on the validation split, unless that is the evaluated one, or on the other folds."""
    if not eval_set.has_probabilities:
        return None
    if "fold" in eval_set.rows and eval_set.rows["fold"].nunique() > 1:
        return _fitted_on_other_folds(eval_set)
    if split == "validation" or not (run.predictions["split"] == "validation").any():
        return None
    try:
        validation = eval_set_of_split(
            run.predictions, run.taxonomy, head=run.head, split="validation"
        )
    except PredictionsError:  # without usable labels nothing can be fitted
        return None
    temperature = fit_temperature(validation)
    scaled = with_temperature(eval_set, temperature)
    return ValidationFit(
        n_images=validation.n_images,
        temperature=temperature,
        scaled=scaled,
        calibration=calibration_summary(scaled),
        conformal=tuple(
            conformal_result(validation, eval_set, coverage=coverage)
            for coverage in CONFORMAL_COVERAGES
        ),
    )


def _fitted_on_other_folds(eval_set: EvalSet) -> ValidationFit:
    """Scale the images of each fold by a temperature that was fitted on the other folds."""
    folds = eval_set.rows["fold"].to_numpy()
    probabilities = eval_set.probabilities.copy()
    for fold in np.unique(folds):
        others, own = _rows_of(eval_set, folds != fold), _rows_of(eval_set, folds == fold)
        probabilities[folds == fold] = with_temperature(own, fit_temperature(others)).probabilities
    scaled = replace(eval_set, probabilities=probabilities)
    return ValidationFit(
        n_images=eval_set.n_images,
        temperature=fit_temperature(eval_set),
        scaled=scaled,
        calibration=calibration_summary(scaled),
        conformal=(),
        by_fold=True,
    )


def _rows_of(eval_set: EvalSet, inside: npt.NDArray[np.bool_]) -> EvalSet:
    return replace(
        eval_set,
        rows=eval_set.rows[inside].reset_index(drop=True),
        labels=eval_set.labels[inside],
        probabilities=eval_set.probabilities[inside],
        patients=eval_set.patients[inside],
    )
