"""Hyperparameter search on the validation part, with Optuna.

Each trial is a training in a folder of its own. The trials' manifest holds no test image, so that
none can be read. A database keeps all trials: several workers share it, and a search that was
stopped continues.

Optuna's `MaxTrialsCallback` is not used, since it does not count running trials: several workers
would start more trials than requested.
"""

import math
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
import pandas as pd
from matplotlib.axes import Axes
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.errors import ConfigError, GlomerulabError, TrainingError
from glomerulab.evaluation.figures.style import new_figure, save_figure
from glomerulab.evaluation.run_tables import read_history
from glomerulab.runtime.files import atomic_write, make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.runtime.resume import changed_settings, describe_changes
from glomerulab.runtime.sealing import SEAL_FILE, write_seal
from glomerulab.training.config import (
    DerivedConfig,
    FrozenConfig,
    read_toml_config,
    write_config,
)
from glomerulab.training.history import EpochRow
from glomerulab.training.run import train
from glomerulab.training.run_folder import file_sha256

__all__ = ["SearchConfig", "SearchResult", "read_search_config", "search"]

STUDY_NAME = "glomerulab"
MAX_CONNECTION_ATTEMPTS = 10
CREATED_BY_OTHER_WORKER = ("already exists", "unique constraint", "duplicate key")
HEARTBEAT_SECONDS = 10
POLL_SECONDS = 2.0
WITHOUT_EFFECT = {"out", "manifest", "n_workers", "tensorboard"}
"""Settings of the training that do not change a trial; the manifest is compared by its content."""
NOT_KEPT = ("state", "checkpoint", "last", "best")
CHANGES_THE_LOSS = ("balance", "model.head")
PANELS_PER_ROW = 3
MAX_LINEAR_RATIO = 20.0

Choice = bool | int | float | str
"""One value of a setting."""


class Range(FrozenConfig):
    """An interval of numbers."""

    low: float
    high: float
    log: bool = False
    """Whether to sample on a logarithmic scale."""

    @model_validator(mode="after")
    def _check_order(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"needs low < high, and low > 0 with log, got {self.low}, {self.high}")
        return self


class SearchConfig(DerivedConfig):
    """A search: its space, number of trials, and metric."""

    storage: str | None = None
    """URL of a database that several workers share, such as ``postgresql://…``; by default SQLite
    in `out`."""
    n_trials: int = Field(default=20, ge=1)
    """Of all workers together."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """``grid`` tries every combination once, up to `n_trials`."""
    prune: bool = True
    """Stop a trial that is worse than the median of the others at the same epoch."""
    n_warmup_epochs: int = Field(default=5, ge=0)
    """Epochs before a trial can be pruned."""
    metric: Literal["validation_loss", "validation_accuracy"] = "validation_loss"
    seed: int = Field(default=0, ge=0)
    space: dict[str, Range | tuple[Choice, ...]] = Field(min_length=1)
    """Dotted keys of the training configuration: a list of choices, or a range."""

    @model_validator(mode="after")
    def _check_space(self) -> "SearchConfig":
        ranges = [key for key, values in self.space.items() if isinstance(values, Range)]
        if self.sampler == "grid" and ranges:
            raise ValueError(f"a grid needs lists, and {ranges[0]} is a range")
        for key in {"manifest", "out", "seed"}.intersection(self.space):
            raise ValueError(f"space: {key} cannot be searched")
        for key in CHANGES_THE_LOSS if self.metric == "validation_loss" else ():
            if key in self.space:
                raise ValueError(
                    f"{key} changes the definition of the validation loss; with it in the space, "
                    "set metric = 'validation_accuracy'"
                )
        return self

    @property
    def n_wanted(self) -> int:
        """Number of trials to run: a grid has no more than its combinations."""
        if self.sampler != "grid":
            return self.n_trials
        sizes = [len(values) for values in self.space.values() if isinstance(values, tuple)]
        return min(self.n_trials, math.prod(sizes))


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The outcome of a search."""

    best_config: Path
    """For ``glomerulab train``."""
    best_value: float
    best_values: Mapping[str, object]
    """The searched settings, by dotted key."""
    trials: pd.DataFrame
    """See `trials_table`."""


def read_search_config(path: Path, overrides: Mapping[str, object] | None = None) -> SearchConfig:
    """Read the configuration of a search from TOML, and check its space against the training's.

    Parameters
    ----------
    overrides : mapping of str to object, optional
        Replace values of the file; paths in them are relative to the working folder.

    Returns
    -------
    SearchConfig
        With absolute paths.

    Raises
    ------
    ConfigError
        If a file is missing or malformed, a key is unknown, or the training configuration refuses
        a value of the space; the message names it.
    """
    config = read_toml_config(path, SearchConfig, ("train", "out", "manifest"), overrides)
    for key, values in config.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            config.training({key: value}, config.out)
    return config


def search(config: SearchConfig, *, track: Track = silent) -> SearchResult:
    """Run trials until the requested number has ended, and write the results.

    Returns
    -------
    SearchResult
        Also written: ``trials.csv``, ``search.png``, ``best.toml``, and the configuration and
        history of each trial below ``trials/``.

    Raises
    ------
    TrainingError
        If no trial ended with a result; the message gives the reason of the last one.
    ConfigError
        If the database cannot be opened, or is of another search.
    """
    make_folder(config.out)
    with _quiet_optuna(), _open_study(config) as study:
        _check_same_search(study, config)
        manifest_path = _write_manifest_without_test(config)
        for _ in track(_trials_to_run(study, config), "Trials", config.n_trials):
            study.sampler = _sampler(config, seed=config.seed + len(study.trials))
            study.optimize(_objective(config, manifest_path), n_trials=1, catch=GlomerulabError)
        return _write_result(study, config, is_synthetic=read_manifest(manifest_path).is_synthetic)


def _write_manifest_without_test(config: SearchConfig) -> Path:
    """Write the manifest of the trials: training and validation only."""
    manifest = read_manifest(config.training({}, config.out).manifest)
    inside = manifest.table["split"].isin(["train", "validation"]).to_numpy(dtype=bool)
    if not (manifest.table["split"] == "validation").any():
        raise TrainingError(
            "there is no image in the validation part, on which trials are compared; run "
            "`glomerulab split`",
            where=manifest.location,
        )
    path = config.out / "manifest.csv"
    write_manifest(manifest.with_table(manifest.table[inside]), path)
    return path


def _objective(config: SearchConfig, manifest: Path) -> Callable[[optuna.Trial], float]:
    better = min if config.metric == "validation_loss" else max

    def run(trial: optuna.Trial) -> float:
        _check_wanted(trial, config)
        values = {key: _suggest(trial, key, choices) for key, choices in config.space.items()}
        stored = trial.study.get_trials(deepcopy=False)[trial.number]
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(stored)
        number = trial.number if first is None else first  # continues in the killed trial's folder
        folder = config.out / "trials" / f"{number:04d}"
        trial.set_user_attr("folder", folder.name)
        training = config.training(values, folder).model_copy(update={"manifest": manifest})
        reported = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def report(history: list[EpochRow]) -> None:
            for epoch, row in enumerate(history, start=1):
                if epoch not in reported:
                    value = row[config.metric]
                    assert value is not None  # there is a validation part
                    trial.report(value, epoch)
                    reported.add(epoch)
            # Pruning after the last epoch would save nothing and lose the result.
            if len(history) < training.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            make_folder(folder.parent)
            train(training, resume=True, on_epoch=report)
            history = read_history(folder / "history.csv")
        except GlomerulabError as error:
            trial.set_user_attr("reason", str(error))
            raise
        finally:
            for name in NOT_KEPT:
                shutil.rmtree(folder / name, ignore_errors=True)
            if (folder / SEAL_FILE).is_file():
                write_seal(folder)
        return float(better(float(value) for value in history[config.metric]))

    return run


def _suggest(trial: optuna.Trial, key: str, choices: tuple[Choice, ...] | Range) -> object:
    if isinstance(choices, Range):
        return trial.suggest_float(key, choices.low, choices.high, log=choices.log)
    return trial.suggest_categorical(key, choices)


def _sampler(config: SearchConfig, *, seed: int) -> optuna.samplers.BaseSampler:
    """Return a sampler seeded by the number of trials, so that a stopped search is reproducible."""
    if config.sampler == "grid":
        grid = {
            key: list(values) for key, values in config.space.items() if isinstance(values, tuple)
        }
        return optuna.samplers.GridSampler(grid, seed=config.seed)
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _trials_to_run(study: optuna.Study, config: SearchConfig) -> Iterator[int]:
    """Yield once for each trial that this worker has to run."""
    while True:
        fail_stale_trials(study)  # trials of killed workers are queued again
        n_ended, n_running = _count_trials(study.get_trials(deepcopy=False))
        if n_ended >= config.n_wanted:
            return
        if n_ended + n_running < config.n_wanted:
            yield n_ended
        else:  # other workers run the last ones; if they are killed, this worker takes over
            time.sleep(POLL_SECONDS)


def _count_trials(trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    """Return the numbers of ended and running trials; a retried trial counts once."""
    retried = {RetryHeartbeatStaleTrialCallback.retried_trial_number(trial) for trial in trials}
    n_ended = sum(_has_ended(trial) and trial.number not in retried for trial in trials)
    return n_ended, sum(trial.state is TrialState.RUNNING for trial in trials)


def _has_ended(trial: FrozenTrial) -> bool:
    """Return whether a trial counts; an interrupted one has no reason and does not."""
    failed = trial.state is TrialState.FAIL and "reason" in trial.user_attrs
    return failed or trial.state in {TrialState.COMPLETE, TrialState.PRUNED}


class _SurplusTrialError(GlomerulabError):
    """Other workers have started the last trials in the meantime."""


def _check_wanted(trial: optuna.Trial, config: SearchConfig) -> None:
    """Fail a surplus trial; without a reason it does not count."""
    earlier = [one for one in trial.study.get_trials(deepcopy=False) if one.number < trial.number]
    if sum(_count_trials(earlier)) >= config.n_wanted:
        raise _SurplusTrialError("the trial is not needed: other workers run the last ones")


@contextmanager
def _open_study(config: SearchConfig) -> Iterator[optuna.Study]:
    """Open the study, and close its connections at the end: a server has few of them."""
    storage = _open_storage(config)
    try:
        study = optuna.load_study(
            storage=storage,
            study_name=STUDY_NAME,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=config.n_warmup_epochs)
            if config.prune
            else optuna.pruners.NopPruner(),
        )
        _check_readable(study, config)
        yield study
    finally:
        _close(storage)


def _check_readable(study: optuna.Study, config: SearchConfig) -> None:
    """Read every trial once: cells of a damaged database raise errors of every class."""
    try:
        study.get_trials(deepcopy=False)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"the database of the search is damaged ({reason}); restore a copy of it, or choose "
            "another output folder",
            where=_without_password(_database_url(config)),
        ) from error


def _open_storage(config: SearchConfig) -> RDBStorage:
    # `Exception`, since SQLAlchemy and each driver raise their own errors.
    url = _database_url(config)
    for attempt in range(1, MAX_CONNECTION_ATTEMPTS + 1):
        try:
            return _storage_with_study(url, config)
        except Exception as error:
            text = str(error).lower()
            is_race = any(phrase in text for phrase in CREATED_BY_OTHER_WORKER)
            if not is_race or attempt == MAX_CONNECTION_ATTEMPTS:
                reason = str(error).splitlines()[0]
                raise ConfigError(
                    f"the storage cannot be opened: {reason}", where=_without_password(url)
                ) from error
            time.sleep(0.5)  # another worker that started at the same time creates the tables
    raise AssertionError("the last attempt either returns or raises")


def _database_url(config: SearchConfig) -> str:
    if config.storage is None:
        return f"sqlite:///{config.out.absolute() / 'study.db'}"
    # The driver that is installed with glomerulab; SQLAlchemy's default is another one.
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", config.storage)


def _without_password(url: str) -> str:
    return re.sub("(://[^:/]*):.*@", r"\1:***@", url)


def _storage_with_study(url: str, config: SearchConfig) -> RDBStorage:
    storage = RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=3 * HEARTBEAT_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    try:
        optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            load_if_exists=True,
            direction="minimize" if config.metric == "validation_loss" else "maximize",
        )
    except Exception:
        _close(storage)
        raise
    return storage


def _close(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _check_same_search(study: optuna.Study, config: SearchConfig) -> None:
    """Check that the database is new or of this search, since its values are compared."""
    training = config.training({}, config.out)
    settings: dict[str, object] = {
        "metric": config.metric,
        "space": {
            key: values.model_dump() if isinstance(values, Range) else list(values)
            for key, values in config.space.items()
        },
        "training": training.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        "manifest": file_sha256(training.manifest),
    }
    changes = changed_settings({**settings, **study.user_attrs.get("asked", {})}, settings)
    if changes:
        raise ConfigError(
            f"this is another search ({describe_changes(changes)}); give another --out or storage",
            where=_without_password(config.storage or str(config.out)),
        )
    study.set_user_attr("asked", settings)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silence Optuna's log of trials and its notices of experimental functions."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _write_result(study: optuna.Study, config: SearchConfig, *, is_synthetic: bool) -> SearchResult:
    table = trials_table(study)
    with atomic_write(config.out / "trials.csv") as temporary:
        table.to_csv(temporary, index=False)
    if all(trial.state is not TrialState.COMPLETE for trial in study.trials):
        raise TrainingError(f"no trial ended with a result; the last: {_last_reason(study)}")
    write_plot(study, config.out, metric=config.metric, is_synthetic=is_synthetic)
    values = study.best_trial.params
    best_config = config.out / "best.toml"
    write_config(config.training(values, config.out / "run"), best_config)
    return SearchResult(best_config, study.best_value, values, table)


def _last_reason(study: optuna.Study) -> str:
    reasons = [str(trial.user_attrs["reason"]) for trial in study.trials if _has_reason(trial)]
    return reasons[-1] if reasons else "stopped before its end"


def _has_reason(trial: FrozenTrial) -> bool:
    return trial.user_attrs.get("reason") is not None


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """Return one row per trial, without surplus ones.

    The columns are ``trial``, ``state``, ``value``, ``n_epochs``, ``seconds``, ``folder``,
    ``reason``, then one per searched setting. The value of a pruned trial is that of its last
    epoch.
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
            if trial.state is not TrialState.FAIL or trial.user_attrs  # not surplus
        ]
    )


def write_plot(study: optuna.Study, folder: Path, *, metric: str, is_synthetic: bool) -> None:
    """Plot the values over the trials and over each searched setting, as search.png and search.svg.

    Optuna's own plots set a global matplotlib style and omit pruned and failed trials.
    """
    table = trials_table(study)
    complete = table[table["state"] == "complete"]
    names = sorted({name for trial in study.trials for name in trial.params})
    n_rows = math.ceil((1 + len(names)) / PANELS_PER_ROW)
    figure = new_figure(3.6 * PANELS_PER_ROW, 3.0 * n_rows)
    axes = figure.subplots(n_rows, PANELS_PER_ROW, squeeze=False).ravel()
    _plot_trials(axes[0], table, complete, lower_is_better=metric == "validation_loss")
    for axis, name in zip(axes[1:], names, strict=False):
        _plot_setting(axis, complete, name)
    for axis in axes[1 + len(names) :]:
        axis.set_axis_off()
    for row in range(n_rows):
        axes[row * PANELS_PER_ROW].set_ylabel(metric.replace("_", " "))
    images = "synthetic images of the validation part" if is_synthetic else "the validation part"
    figure.suptitle(f"Trials, evaluated on {images}. Research use only.", fontsize=10)
    save_figure(figure, folder, "search")


def _plot_trials(
    axis: Axes, table: pd.DataFrame, complete: pd.DataFrame, *, lower_is_better: bool
) -> None:
    axis.plot(complete["trial"], complete["value"], "o", label="complete")
    best = complete["value"].cummin() if lower_is_better else complete["value"].cummax()
    axis.step(complete["trial"], best, where="post", color="0.3", label="best so far")
    for state, marker in (("pruned", "x"), ("fail", "+")):
        of_state = table[table["state"] == state]
        if len(of_state):
            low = float(complete["value"].min())
            axis.plot(of_state["trial"], [low] * len(of_state), marker, color="0.5", label=state)
    axis.set_xlabel("trial")
    axis.legend(fontsize=8)


def _plot_setting(axis: Axes, complete: pd.DataFrame, name: str) -> None:
    numbers = pd.to_numeric(complete[name], errors="coerce")
    if numbers.isna().any():
        axis.plot(complete[name].astype(str), complete["value"], "o")
    else:
        axis.plot(numbers, complete["value"], "o")
        if numbers.min() > 0 and numbers.max() / numbers.min() > MAX_LINEAR_RATIO:
            axis.set_xscale("log")
    axis.set_xlabel(name)
