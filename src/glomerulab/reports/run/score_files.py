"""The numbers of a report as files for programs: what the page shows, as CSV and JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.evaluation.result import EvaluationResult
from glomerulab.runtime.files import atomic_write

__all__ = ["write_scores_json", "write_table_csv"]


def write_table_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; what is not defined is empty.

    Parameters
    ----------
    table : DataFrame
    path : Path
        Replaced if it exists.
    """
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, na_rep="")


def write_scores_json(
    judgement: EvaluationResult,
    path: Path,
    *,
    headline: str,
    external: EvaluationResult | None = None,
) -> None:
    """Write everything that was found as JSON; what is not defined is null.

    Parameters
    ----------
    judgement : Judgement
    path : Path
        Replaced if it exists.
    headline : str
    external : Judgement, optional
        Of an external set; its scores stand under the key ``external``.
    """
    facts = _facts(judgement, headline)
    if external is not None:
        facts["external"] = {
            "n_images": external.eval_set.n_images,
            "n_patients": external.eval_set.n_patients,
            "scores": external.scores.to_dict("records"),
            "calibration": asdict(external.calibration),
        }
    text = json.dumps(_plain(facts), ensure_ascii=False, indent=2, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _facts(judgement: EvaluationResult, headline: str) -> dict[str, Any]:
    run, eval_set, fitted = judgement.run, judgement.eval_set, judgement.fitted
    return {
        "research_use_only": True,
        "synthetic": run.is_synthetic,
        "headline": headline,
        "split": judgement.split,
        "head": run.head,
        "taxonomy": run.taxonomy.name,
        "n_images": eval_set.n_images,
        "n_patients": eval_set.n_patients,
        "n_left_out": eval_set.n_left_out,
        "interval": {
            "level": 0.95,
            "method": "percentile bootstrap over patients",
            "n_resamples": judgement.n_resamples,
            "seed": judgement.seed,
        },
        "caveats": [asdict(caveat) for caveat in judgement.warnings],
        "scores": judgement.scores.to_dict("records"),
        "calibration": asdict(judgement.calibration),
        "fitted_on_validation": None
        if fitted is None
        else {
            "n_images": fitted.n_images,
            "temperature": fitted.temperature,
            "calibration": asdict(fitted.calibration),
            "conformal": [asdict(result) for result in fitted.conformal],
        },
        "subgroups": judgement.subgroups.to_dict("records"),
        "delong": judgement.delong.to_dict("records"),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Turn numpy's numbers into Python's, and what is not defined into null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value
