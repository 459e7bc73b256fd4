import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import tomli_w

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError, TrainingError
from glomerulab.training import search as search_module
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.search import search
from glomerulab.training.search_config import SearchConfig, read_search_config
from tests.support.postgres import POSTGRES_URL, WITHOUT_POSTGRES, empty_schema

RATES = [3e-3, 1e-8]


def _search(config: TrainConfig, **changes: object) -> SearchConfig:
    folder = config.manifest.parent
    write_config(config, folder / "train.toml")
    table = {
        "train": "train.toml",
        "out": "search",
        "n_trials": 3,
        "sampler": "random",
        "space": {"optimizer.learning_rate": RATES, "batch_size": [4, 8]},
    } | changes
    (folder / "search.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return read_search_config(folder / "search.toml")


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What to say of the database that workers share."""
    if request.param == "sqlite":
        yield {}
        return
    if not POSTGRES_URL:
        pytest.skip(WITHOUT_POSTGRES)
    with empty_schema() as url:
        yield {"storage": url}


def _worker(told: SearchConfig) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glomerulab", "search", str(told.out.parent / "search.toml")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_search_finds_the_better_setting_and_never_reads_the_test_part(
    config: TrainConfig,
) -> None:
    manifest = read_manifest(config.manifest)
    for path, split in zip(manifest.image_paths(), manifest.table["split"], strict=True):
        if split == "test":
            path.unlink()
    told = _search(config, sampler="grid", n_trials=20)
    result = search(told)
    assert len(result.trials) == 4
    assert set(result.trials["state"]) == {"complete"}
    assert result.best_values["optimizer.learning_rate"] == 3e-3
    assert result.best_value == result.trials["value"].min()
    best = read_config(result.best_config)
    assert (best.optimizer.learning_rate, best.manifest) == (3e-3, config.manifest)
    history = pd.read_csv(told.out / "trials" / "0000" / "history.csv")
    assert history["validation_loss"].min() == result.trials["value"][0]
    assert (told.out / "search.png").is_file()
    assert not list(told.out.rglob("*.safetensors"))


def test_a_search_goes_on_where_it_was_and_as_it_would_have(
    config: TrainConfig, tmp_path: Path
) -> None:
    short = config.model_copy(update={"epochs": 1})
    whole = search(_search(short, out=str(tmp_path / "whole")))
    search(_search(short, n_trials=2))
    result = search(_search(short))
    for name in ("value", "optimizer.learning_rate", "batch_size"):
        assert result.trials[name].tolist() == whole.trials[name].tolist()
    assert len(search(_search(short)).trials) == 3  # nothing is left to do


def test_a_trial_that_fails_is_told_and_the_search_goes_on(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    space = {"optimizer.learning_rate": [1e-3, 1e30], "optimizer.name": ["sgd"]}
    result = search(_search(short, space=space, sampler="grid"))
    failed = result.trials[result.trials["state"] == "fail"]
    assert len(result.trials) == 2
    assert failed["reason"].str.contains("_loss is nan|_loss is inf").all()
    wild = {**space, "optimizer.learning_rate": [1e30]}
    with pytest.raises(TrainingError, match=r"no trial came to a result; the last: .*_loss is"):
        search(_search(short, out="other", space=wild, n_trials=1))


def test_a_bad_trial_is_stopped_early(config: TrainConfig) -> None:
    long = config.model_copy(update={"epochs": 4})
    # Random order; five trials have to stand before Optuna compares.
    space = {"optimizer.learning_rate": [3e-3, 3.1e-3, 3.2e-3, 3.3e-3, 3.4e-3, 1e-9]}
    result = search(_search(long, space=space, n_warmup_epochs=1, n_trials=12))
    pruned = result.trials[result.trials["state"] == "pruned"]
    assert len(pruned)
    assert (pruned["n_epochs"] < 4).all()


def test_another_space_and_a_missing_validation_part_are_refused(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    search(_search(short, n_trials=1))
    with pytest.raises(ConfigError, match="holds a search with another space; give another --out"):
        search(_search(short, space={"batch_size": [8]}))
    with pytest.raises(ConfigError, match="holds a search with another training; give"):
        search(_search(config))
    kept, before = (config.out.parent / "search" / "manifest.csv").read_bytes(), config.manifest
    text = before.read_text()
    before.write_text(text.replace(",train,", ",validation,", 1))
    with pytest.raises(ConfigError, match="holds a search with another manifest; give"):
        search(_search(short, n_trials=2))
    before.write_text(text)
    assert (config.out.parent / "search" / "manifest.csv").read_bytes() == kept
    with pytest.raises(ConfigError, match="storage cannot be opened"):
        search(_search(short, storage="nosuch://database"))


def test_no_password_is_told(config: TrainConfig) -> None:
    told = _search(config, storage="postgresql://me:secret@127.0.0.1:1/none")
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1") as raised:
        search(told)
    assert "secret" not in str(raised.value)


def test_no_more_trials_are_run_than_were_asked_for_if_two_workers_look_at_once(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _search(config.model_copy(update={"epochs": 1}), n_trials=2)
    # As if the last free trial had been seen by this worker while another was asking for it.
    monkeypatch.setattr(search_module, "_tickets", lambda study, config: iter(range(4)))
    table = search(told).trials
    assert table["state"].tolist() == ["complete"] * 2
    assert len(list((told.out / "trials").iterdir())) == 2


@pytest.mark.slow
def test_workers_that_begin_together_share_the_trials(
    config: TrainConfig, storage: dict[str, str]
) -> None:
    told = _search(config, n_trials=6, prune=False, **storage)
    workers = [_worker(told) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=400)
        assert worker.returncode == 0, errors
    table = search(told).trials
    assert table["state"].tolist() == ["complete"] * 6
    assert sorted(table["folder"]) == [f"{number:04d}" for number in range(6)]


@pytest.mark.slow
def test_two_workers_share_a_search_and_one_that_is_killed_loses_nothing(
    config: TrainConfig, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _search(config.model_copy(update={"epochs": 30}), n_trials=4, prune=False, **storage)
    workers = [_worker(told) for _ in range(2)]
    trials = told.out / "trials"
    while len(list(trials.glob("*/history.csv"))) < 2:
        assert workers[0].poll() is None, workers[0].communicate()[1]
        time.sleep(0.05)
    workers[1].kill()
    workers[1].communicate()
    _, errors = workers[0].communicate(timeout=400)
    assert workers[0].returncode == 0, errors
    monkeypatch.setattr(search_module, "SECONDS_BETWEEN_LOOKS", 0.1)
    table = search(told).trials
    assert (table["state"] == "complete").sum() == 4
    assert (table["state"] == "fail").sum() == 1  # the killed one, tried again
    again = table[table.duplicated("folder", keep="last")]
    assert again["state"].tolist() == ["fail"]
