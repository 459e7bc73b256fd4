"""All that can be said of one run from its tables, computed once; reports only tell it."""

from dataclasses import dataclass

import pandas as pd

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.calibration import CalibrationSummary, calibration_summary
from glomerulab.evaluation.caveats import Caveat, find_caveats
from glomerulab.evaluation.conformal import ConformalResult, conformal_result
from glomerulab.evaluation.intervals import MIN_RESAMPLES
from glomerulab.evaluation.judged import Judged, judged_part
from glomerulab.evaluation.run_tables import RunTables
from glomerulab.evaluation.scores import score_table
from glomerulab.evaluation.subgroups import SUBGROUP_COLUMNS, subgroup_table
from glomerulab.evaluation.temperature import fit_temperature, with_temperature

__all__ = ["CONFORMAL_COVERAGES", "Fitted", "Judgement", "judge_run"]

CONFORMAL_COVERAGES = (0.8, 0.9, 0.95)
"""Stated coverages that a report shows."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted on the validation part and applied to the judged one."""

    n_images: int
    """Validation images."""
    temperature: float
    scaled: Judged
    """The judged images with their probabilities scaled."""
    calibration: CalibrationSummary
    """Of `scaled`."""
    conformal: tuple[ConformalResult, ...]


@dataclass(frozen=True)
class Judgement:
    """What was found on one part of a run."""

    run: RunTables
    split: str
    n_resamples: int
    seed: int
    judged: Judged
    scores: pd.DataFrame
    """See `glomerulab.evaluation.scores.score_table`."""
    calibration: CalibrationSummary
    fitted: Fitted | None
    """None where there is no other part to fit on."""
    subgroups: pd.DataFrame
    """See `glomerulab.evaluation.subgroups.subgroup_table`; all columns one under another."""
    caveats: tuple[Caveat, ...]


def judge_run(
    run: RunTables, *, split: str = "test", n_resamples: int = MIN_RESAMPLES, seed: int = 0
) -> Judgement:
    """Judge one part of a run.

    Parameters
    ----------
    run : RunTables
    split : str, default "test"
    n_resamples : int, default 2000
        Of patients, for the intervals.
    seed : int, default 0
        Of the resampling.

    Returns
    -------
    Judgement

    Raises
    ------
    PredictionsError
        If no image of that part can be judged.
    """
    judged = judged_part(run.predictions, run.taxonomy, head=run.head, split=split)
    tables = [
        subgroup_table(judged, column, n_resamples=n_resamples, seed=seed)
        for column in SUBGROUP_COLUMNS
        if column in judged.rows and judged.rows[column].notna().any()
    ]
    scores = score_table(judged, n_resamples=n_resamples, seed=seed)
    return Judgement(
        run=run,
        split=split,
        n_resamples=n_resamples,
        seed=seed,
        judged=judged,
        scores=scores,
        calibration=calibration_summary(judged),
        fitted=_fitted(run, judged, split),
        subgroups=pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(),
        caveats=tuple(find_caveats(run, judged, scores)),
    )


def _fitted(run: RunTables, judged: Judged, split: str) -> Fitted | None:
    """Fit on validation, unless that is what is judged."""
    if split == "validation" or not (run.predictions["split"] == "validation").any():
        return None
    try:
        validation = judged_part(run.predictions, run.taxonomy, head=run.head, split="validation")
    except PredictionsError:  # none of its images can be judged, so nothing can be fitted
        return None
    temperature = fit_temperature(validation)
    scaled = with_temperature(judged, temperature)
    return Fitted(
        n_images=validation.n_images,
        temperature=temperature,
        scaled=scaled,
        calibration=calibration_summary(scaled),
        conformal=tuple(
            conformal_result(validation, judged, coverage=coverage)
            for coverage in CONFORMAL_COVERAGES
        ),
    )
