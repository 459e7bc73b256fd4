"""What a search tried, as a table and a picture."""

import math
from pathlib import Path

import optuna
import pandas as pd
from matplotlib.axes import Axes
from optuna.trial import TrialState

from glomerulab.evaluation.figures.style import new_figure, save_figure
from glomerulab.runtime.files import atomic_write

__all__ = ["trials_table", "write_plot", "write_trials"]

PANELS_PER_ROW = 3
LARGEST_LINEAR_RATIO = 20.0


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial.

    Parameters
    ----------
    study : Study

    Returns
    -------
    DataFrame
        ``trial``, ``state``, ``value``, ``n_epochs``, ``seconds``, ``folder``, ``reason``, then one
        column per searched setting; a pruned trial's value is that of its last epoch. One that a
        worker asked for and left, since others had begun the last, is no row.
    """
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                "value": trial.value,
                "n_epochs": max(trial.intermediate_values, default=0),
                "seconds": None if trial.duration is None else trial.duration.total_seconds(),
                "folder": trial.user_attrs.get("folder"),
                "reason": trial.user_attrs.get("reason"),
                **trial.params,
            }
            for trial in study.trials
            if trial.state is not TrialState.FAIL or trial.user_attrs  # it was begun
        ]
    )


def write_trials(study: optuna.Study, path: Path) -> pd.DataFrame:
    """Write the table as CSV and return it."""
    table = trials_table(study)
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False)
    return table


def write_plot(study: optuna.Study, folder: Path, *, metric: str, is_synthetic: bool) -> None:
    """Draw the values over the trials, and over each searched setting, as PNG and SVG.

    Parameters
    ----------
    study : Study
        With at least one complete trial.
    folder : Path
        Gets ``search.png`` and ``search.svg``.
    metric : str
        Named on the axis.
    is_synthetic : bool
        Whether the images were rendered; the title then says so.
    """
    table = trials_table(study)
    complete = table[table["state"] == TrialState.COMPLETE.name.lower()]
    names = sorted({name for trial in study.trials for name in trial.params})
    n_rows = math.ceil((1 + len(names)) / PANELS_PER_ROW)
    figure = new_figure(3.6 * PANELS_PER_ROW, 3.0 * n_rows)
    axes = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False).ravel()
    _over_trials(axes[0], table, complete, lower_is_better=metric == "validation_loss")
    for axis, name in zip(axes[1:], names, strict=False):
        _over_setting(axis, complete, name)
    for axis in axes[1 + len(names) :]:
        axis.set_axis_off()
    for row in range(n_rows):
        axes[row * PANELS_PER_ROW].set_ylabel(metric.replace("_", " "))
    images = "synthetic images of the validation part" if is_synthetic else "the validation part"
    figure.suptitle(f"Settings tried, judged on {images}. Research use only.", fontsize=10)
    save_figure(figure, folder, "search")


def _over_trials(
    axis: Axes,
    table: pd.DataFrame,
    complete: pd.DataFrame,
    *,
    lower_is_better: bool,
) -> None:
    axis.plot(complete["trial"], complete["value"], "o", label="complete")
    best = complete["value"].cummin() if lower_is_better else complete["value"].cummax()
    axis.step(complete["trial"], best, where="post", color="0.3", label="best so far")
    for state, mark in (("pruned", "x"), ("fail", "+")):
        of_state = table[table["state"] == state]
        if len(of_state):
            low = float(complete["value"].min())
            axis.plot(of_state["trial"], [low] * len(of_state), mark, color="0.5", label=state)
    axis.set_xlabel("trial")
    axis.legend(fontsize=8)


def _over_setting(axis: Axes, complete: pd.DataFrame, name: str) -> None:
    numbers = pd.to_numeric(complete[name], errors="coerce")
    if numbers.isna().any():
        axis.plot(complete[name].astype(str), complete["value"], "o")
    else:
        axis.plot(numbers, complete["value"], "o")
        if numbers.min() > 0 and numbers.max() / numbers.min() > LARGEST_LINEAR_RATIO:
            axis.set_xscale("log")
    axis.set_xlabel(name)
