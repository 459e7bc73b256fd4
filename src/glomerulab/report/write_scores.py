"""The scores of a report as files for programs: the same numbers, CSV and JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from glomerulab.files import written_whole

__all__ = ["write_scores_csv", "write_scores_json"]


def write_scores_csv(scores: pd.DataFrame, path: Path) -> None:
    """Write a score table as CSV; what is not defined says so.

    Parameters
    ----------
    scores : DataFrame
        See `glomerulab.evaluation.scores.score_table`.
    path : Path
        Replaced if it exists.
    """
    with written_whole(path) as temporary:
        scores.to_csv(temporary, index=False, na_rep="")


def write_scores_json(scores: pd.DataFrame, path: Path, *, about: dict[str, Any]) -> None:
    """Write a score table as JSON; what is not defined is null.

    Parameters
    ----------
    scores : DataFrame
    path : Path
        Replaced if it exists.
    about : dict
        What the scores are of; written beside them.
    """
    rows = [
        {str(name): _plain(value) for name, value in row.items()}
        for row in scores.to_dict("records")
    ]
    text = json.dumps({**about, "scores": rows}, ensure_ascii=False, indent=2, allow_nan=False)
    with written_whole(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a table cell holds
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value
