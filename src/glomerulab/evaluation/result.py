"""All that can be said of one run from its tables, computed once; reports only tell it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.calibration import CalibrationSummary, calibration_summary
from glomerulab.evaluation.conformal import ConformalResult, conformal_result
from glomerulab.evaluation.delong import delong_area
from glomerulab.evaluation.eval_set import EvalSet, eval_set_of_split
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.scores import score_table
from glomerulab.evaluation.subgroups import SUBGROUP_COLUMNS, subgroup_table
from glomerulab.evaluation.temperature import fit_temperature, with_temperature
from glomerulab.evaluation.warnings import EvaluationWarning, find_warnings

__all__ = ["CONFORMAL_COVERAGES", "EvaluationResult", "Fitted", "evaluate_run"]

CONFORMAL_COVERAGES = (0.8, 0.9, 0.95)
"""Stated coverages that a report shows."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted on the validation part and applied to the judged one."""

    n_images: int
    """Validation images."""
    temperature: float
    scaled: EvalSet
    """The judged images with their probabilities scaled."""
    calibration: CalibrationSummary
    """Of `scaled`."""
    conformal: tuple[ConformalResult, ...]


@dataclass(frozen=True)
class EvaluationResult:
    """What was found on one part of a run."""

    run: RunTables
    split: str
    n_resamples: int
    seed: int
    eval_set: EvalSet
    scores: pd.DataFrame
    """See `glomerulab.evaluation.scores.score_table`."""
    calibration: CalibrationSummary
    fitted: Fitted | None
    """None where there is no other part to fit on."""
    subgroups: pd.DataFrame
    """See `glomerulab.evaluation.subgroups.subgroup_table`; all columns one under another."""
    caveats: tuple[EvaluationWarning, ...]
    delong: pd.DataFrame
    """ROC areas by DeLong (``label``, ``auc``, ``standard_error``, ``low``, ``high``); empty where
    images are not independent, that is, where a patient has several or is not known."""


def evaluate_run(
    run: RunTables,
    *,
    split: str = "test",
    n_resamples: int = MIN_RESAMPLES,
    seed: int = 0,
    by: Sequence[str] = (),
    more_caveats: Sequence[EvaluationWarning] = (),
    has_external_set: bool = False,
) -> EvaluationResult:
    """Judge one part of a run.

    Parameters
    ----------
    run : RunTables
    split : str, default "test"
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0
        Of the resampling.
    by : sequence of str, default ()
        Columns of the manifest to look into beside `SUBGROUP_COLUMNS`.
    more_caveats : sequence of Caveat, default ()
        What the caller knows beside the tables.
    has_external_set : bool, default False
        Whether an external set is judged, here or beside.

    Returns
    -------
    Judgement

    Raises
    ------
    PredictionsError
        If no image of that part can be judged, or a column of `by` is not there.
    """
    eval_set = _with_columns(
        eval_set_of_split(run.predictions, run.taxonomy, head=run.head, split=split), run, by
    )
    tables = [
        subgroup_table(eval_set, column, n_resamples=n_resamples, seed=seed)
        for column in dict.fromkeys((*SUBGROUP_COLUMNS, *by))
        if column in eval_set.rows and eval_set.rows[column].notna().any()
    ]
    scores = score_table(eval_set, n_resamples=n_resamples, seed=seed)
    caveats = [
        *more_caveats,
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
        delong=_delong(eval_set),
        caveats=tuple(sorted(caveats, key=lambda caveat: not caveat.severe)),
    )


def _with_columns(eval_set: EvalSet, run: RunTables, by: Sequence[str]) -> EvalSet:
    """Bring columns of the manifest beside the predictions."""
    table = run.manifest.table
    missing = [name for name in by if name not in table]
    if missing:
        raise PredictionsError(
            f"the manifest has no column {', '.join(missing)} to look into",
            where=str(run.folder / "manifest.csv"),
        )
    wanted = [name for name in ("agreement", *by) if name in table and name not in eval_set.rows]
    # Of an external set an id may stand in the run's own cohort too: the last one is meant.
    known = table.drop_duplicates("image_id", keep="last").set_index("image_id")
    rows = eval_set.rows.copy()
    for name in wanted:
        rows[name] = known.loc[rows["image_id"], name].to_numpy()
    return replace(eval_set, rows=rows)


def _delong(eval_set: EvalSet) -> pd.DataFrame:
    """Compute areas by DeLong where every image is of another known patient."""
    if eval_set.n_patients < eval_set.n_images or eval_set.n_without_patient:
        return pd.DataFrame()
    rows = []
    for k, label in enumerate(eval_set.taxonomy.label_ids):
        known = ~np.isnan(eval_set.labels[:, k])
        if min(eval_set.n_positive[k], eval_set.n_negative[k]) >= 2:
            area = delong_area(eval_set.labels[known, k], eval_set.probabilities[known, k])
            rows.append({"label": label, **asdict(area)})
    return pd.DataFrame(rows)


def _fitted(run: RunTables, eval_set: EvalSet, split: str) -> Fitted | None:
    """Fit on validation, unless that is what is judged."""
    if split == "validation" or not (run.predictions["split"] == "validation").any():
        return None
    try:
        validation = eval_set_of_split(
            run.predictions, run.taxonomy, head=run.head, split="validation"
        )
    except PredictionsError:  # none of its images can be judged, so nothing can be fitted
        return None
    temperature = fit_temperature(validation)
    scaled = with_temperature(eval_set, temperature)
    return Fitted(
        n_images=validation.n_images,
        temperature=temperature,
        scaled=scaled,
        calibration=calibration_summary(scaled),
        conformal=tuple(
            conformal_result(validation, eval_set, coverage=coverage)
            for coverage in CONFORMAL_COVERAGES
        ),
    )
