"""Try settings, judge them on the validation part, and keep what was found; Optuna chooses.

Each trial is a training of its own in a folder of its own. The manifest they are given holds no
test image, so that none can be read. All that was tried stands in a database: several workers share
it, and a search that was stopped goes on.
"""

import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.errors import ConfigError, GlomerulabError, TrainingError
from glomerulab.runtime.files import make_folder
from glomerulab.runtime.progress import Track, silent
from glomerulab.training.config import TrainConfig, write_config
from glomerulab.training.environment import hash_of
from glomerulab.training.history import EpochRow
from glomerulab.training.run import train
from glomerulab.training.search_config import Range, SearchConfig, trial_config
from glomerulab.training.search_result import write_plot, write_trials

__all__ = ["SearchResult", "search"]

STUDY_NAME = "glomerulab"
MAX_OPENINGS = 10
MADE_BY_ANOTHER = ("already exists", "unique constraint", "duplicate key")
SECONDS_BETWEEN_SIGNS_OF_LIFE = 10
SECONDS_BETWEEN_LOOKS = 2.0
CHANGES_NO_TRIAL = {"out", "manifest", "n_workers", "tensorboard"}
"""Of the training configuration; the manifest is known by its content."""
NOT_KEPT = ("state", "checkpoint", "last", "best")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to."""

    best_config: Path
    """Give it to ``glomerulab train``."""
    best_value: float
    best_values: Mapping[str, object]
    """The searched settings, by dotted key."""
    trials: pd.DataFrame
    """See `glomerulab.training.search_result.trials_table`."""


def search(config: SearchConfig, *, track: Track = silent) -> SearchResult:
    """Search until as many trials have ended as were asked for, and write what was found.

    Parameters
    ----------
    config : SearchConfig
    track : Track, optional

    Returns
    -------
    SearchResult
        Also written: ``trials.csv``, ``search.png``, ``best.toml``, and of each trial its
        configuration and history below ``trials/``.

    Raises
    ------
    TrainingError
        If not one trial ended with a result; it says why the last one failed.
    ConfigError
        If the database cannot be opened, or is of another search.
    """
    make_folder(config.out)
    with _quiet_optuna(), _open_study(config) as study:
        _refuse_other_search(study, config)
        manifest_path = _without_test(config)
        for _ in track(_tickets(study, config), "Trials", config.n_trials):
            study.sampler = _sampler(config, seed=config.seed + len(study.trials))
            study.optimize(_objective(config, manifest_path), n_trials=1, catch=GlomerulabError)
        return _write_result(study, config, is_synthetic=read_manifest(manifest_path).is_synthetic)


def _write_result(study: optuna.Study, config: SearchConfig, *, is_synthetic: bool) -> SearchResult:
    """Write what was found."""
    table = write_trials(study, config.out / "trials.csv")
    complete = [trial for trial in study.trials if trial.state is TrialState.COMPLETE]
    if not complete:
        raise TrainingError(f"no trial came to a result; the last: {_last_reason(study)}")
    write_plot(study, config.out, metric=config.metric, is_synthetic=is_synthetic)
    values = study.best_trial.params
    best_config = config.out / "best.toml"
    write_config(trial_config(config, values, config.out / "run"), best_config)
    return SearchResult(best_config, study.best_value, values, table)


def _without_test(config: SearchConfig) -> Path:
    """Write the manifest that trials see: training and validation, nothing else."""
    manifest = read_manifest(trial_config(config, {}, config.out).manifest)
    inside = manifest.table["split"].isin(["train", "validation"]).to_numpy(dtype=bool)
    if not (manifest.table["split"] == "validation").any():
        raise TrainingError(
            "no image in the validation part, by which settings are chosen; run `glomerulab split`",
            where=manifest.location,
        )
    path = config.out / "manifest.csv"
    write_manifest(manifest.with_table(manifest.table[inside]), path)
    return path


@contextmanager
def _open_study(config: SearchConfig) -> Iterator[optuna.Study]:
    """Give the study, and its connections back at the end: a server has few of them."""
    storage = _open_storage(config)
    try:
        yield optuna.load_study(
            storage=storage,
            study_name=STUDY_NAME,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=config.n_warmup_epochs)
            if config.prune
            else optuna.pruners.NopPruner(),
        )
    finally:
        _close(storage)


def _open_storage(config: SearchConfig) -> RDBStorage:
    # Below another name than SQLite's own errors: whatever SQLAlchemy or a driver raises.
    url = _database_url(config)
    for n_before in range(MAX_OPENINGS):
        try:
            return _storage_with_study(url, config)
        except Exception as error:
            reason = str(error).splitlines()[0]
            is_made_by_another = any(words in str(error).lower() for words in MADE_BY_ANOTHER)
            if not is_made_by_another or n_before == MAX_OPENINGS - 1:
                raise ConfigError(
                    f"storage cannot be opened: {reason}", where=_without_password(url)
                ) from error
            time.sleep(0.5)  # a worker that began at the same time is making the tables
    raise AssertionError("the last opening either returns or raises")


def _database_url(config: SearchConfig) -> str:
    if config.storage is None:
        return f"sqlite:///{config.out.absolute() / 'study.db'}"
    # The driver that is installed with us; SQLAlchemy would look for another one.
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", config.storage)


def _without_password(url: str) -> str:
    return re.sub("(://[^:/]*):.*@", r"\1:***@", url)


def _storage_with_study(url: str, config: SearchConfig) -> RDBStorage:
    storage = RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        heartbeat_interval=SECONDS_BETWEEN_SIGNS_OF_LIFE,
        grace_period=3 * SECONDS_BETWEEN_SIGNS_OF_LIFE,
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


def _refuse_other_search(study: optuna.Study, config: SearchConfig) -> None:
    """Go on with a search only if it is this one: its values are compared with each other."""
    training = trial_config(config, {}, config.out)
    asked: dict[str, object] = {
        "metric": config.metric,
        "space": {
            key: values.model_dump() if isinstance(values, Range) else list(values)
            for key, values in config.space.items()
        },
        "training": training.model_dump(mode="json", exclude=CHANGES_NO_TRIAL),
        "manifest": hash_of(training.manifest),
    }
    stands = study.user_attrs.get("asked", asked)
    differ = [name for name, value in asked.items() if stands.get(name, value) != value]
    if differ:
        raise ConfigError(
            f"holds a search with another {' and '.join(differ)}; give another --out or storage",
            where=_without_password(config.storage or str(config.out)),
        )
    study.set_user_attr("asked", asked)


def _tickets(study: optuna.Study, config: SearchConfig) -> Iterator[int]:
    """Give a ticket for each trial that is this worker's to run."""
    n_asked = min(config.n_trials, _n_combinations(config))
    while True:
        fail_stale_trials(study)  # of workers that were killed: they are queued again
        n_ended, n_running = _ended_and_running(study.get_trials(deepcopy=False))
        if n_ended >= n_asked:
            return
        if n_ended + n_running < n_asked:
            yield n_ended
        else:  # others run the last ones; should they die, their trials are ours
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _ended_and_running(trials: Sequence[FrozenTrial]) -> tuple[int, int]:
    """Count trials, those that were begun again once."""
    again = {RetryHeartbeatStaleTrialCallback.retried_trial_number(trial) for trial in trials}
    n_ended = sum(_has_ended(trial) and trial.number not in again for trial in trials)
    return n_ended, sum(trial.state is TrialState.RUNNING for trial in trials)


class _SurplusTrialError(GlomerulabError):
    """Others have begun the last of the trials since this worker looked."""


def _refuse_surplus(trial: optuna.Trial, config: SearchConfig) -> None:
    """Leave a trial that nobody asked for undone; without a reason it does not count."""
    earlier = [one for one in trial.study.get_trials(deepcopy=False) if one.number < trial.number]
    if sum(_ended_and_running(earlier)) >= min(config.n_trials, _n_combinations(config)):
        raise _SurplusTrialError("is one more than were asked for")


def _has_ended(trial: FrozenTrial) -> bool:
    """Say whether a trial counts; one that a person interrupted gave no reason and does not."""
    failed = trial.state is TrialState.FAIL and "reason" in trial.user_attrs
    return failed or trial.state in {TrialState.COMPLETE, TrialState.PRUNED}


def _n_combinations(config: SearchConfig) -> int:
    """How many trials a grid has; any other search has no end of its own."""
    if config.sampler != "grid":
        return config.n_trials
    n = 1
    for values in config.space.values():
        n *= len(values) if isinstance(values, tuple) else 1
    return n


def _sampler(config: SearchConfig, *, seed: int) -> optuna.samplers.BaseSampler:
    """Seed by the trials there are: one worker, stopped or not, tries the same."""
    if config.sampler == "grid":
        grid = {
            key: list(values) for key, values in config.space.items() if isinstance(values, tuple)
        }
        return optuna.samplers.GridSampler(grid, seed=config.seed)
    if config.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _objective(config: SearchConfig, manifest: Path) -> Callable[[optuna.Trial], float]:
    better = min if config.metric == "validation_loss" else max

    def run(trial: optuna.Trial) -> float:
        _refuse_surplus(trial, config)
        values = {key: _suggest(trial, key, what) for key, what in config.space.items()}
        first = RetryHeartbeatStaleTrialCallback.retried_trial_number(
            trial.study.get_trials(deepcopy=False)[trial.number]
        )
        number = trial.number if first is None else first  # goes on where the killed one was
        folder = config.out / "trials" / f"{number:04d}"
        trial.set_user_attr("folder", folder.name)
        told = trial_config(config, values, folder).model_copy(update={"manifest": manifest})
        known: set[int] = set(
            trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        )

        def watch(history: list[EpochRow]) -> None:
            for epoch, row in enumerate(history, start=1):
                if epoch not in known:
                    trial.report(_value(row, config.metric), epoch)
                    known.add(epoch)
            # After its last epoch a trial has nothing left to save, and its result counts.
            if len(history) < told.epochs and trial.should_prune():
                raise optuna.TrialPruned

        try:
            make_folder(folder.parent)
            history = _trained(told, watch)
        except GlomerulabError as error:
            trial.set_user_attr("reason", str(error))
            raise
        finally:
            for name in NOT_KEPT:
                shutil.rmtree(folder / name, ignore_errors=True)
        return float(better(history))

    def _trained(told: TrainConfig, watch: Callable[[list[EpochRow]], None]) -> list[float]:
        folder = train(told, resume=True, watch=watch)
        return [float(value) for value in pd.read_csv(folder / "history.csv")[config.metric]]

    return run


def _suggest(
    trial: optuna.Trial, key: str, what: tuple[bool | int | float | str, ...] | Range
) -> object:
    if isinstance(what, Range):
        return trial.suggest_float(key, what.low, what.high, log=what.log)
    return trial.suggest_categorical(key, what)


def _value(row: EpochRow, metric: str) -> float:
    value = row[metric]
    assert value is not None  # there is a validation part
    return value


def _last_reason(study: optuna.Study) -> str:
    def reason(trial: FrozenTrial) -> str | None:
        text = trial.user_attrs.get("reason")
        return None if text is None else str(text)

    reasons = [text for trial in study.trials if (text := reason(trial)) is not None]
    return reasons[-1] if reasons else "stopped before its end"


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Show the trials as we show all work, and no notice that a function is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
