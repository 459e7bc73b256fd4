import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pandas as pd
import pytest
import tomli_w
from PIL import Image

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError, TrainingError
from glomerulab.runtime.sealing import check_seal
from glomerulab.training import search as search_module
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.search import (
    Range,
    SearchConfig,
    read_search_config,
    search,
    trials_table,
    write_plot,
)
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
    """Settings of the database that workers share."""
    if request.param == "sqlite":
        yield {}
        return
    if not POSTGRES_URL:
        pytest.skip(WITHOUT_POSTGRES)
    with empty_schema() as url:
        yield {"storage": url}


def _worker(wanted: SearchConfig) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glomerulab", "search", str(wanted.out.parent / "search.toml")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_search_finds_the_better_setting_and_never_reads_the_test_part(
    config: TrainConfig,
) -> None:
    manifest = read_manifest(config.manifest)
    for path, split in zip(manifest.image_paths(), manifest.table["split"], strict=True):
        if split == "test":
            path.unlink()
    wanted = _search(config, sampler="grid", n_trials=20)
    result = search(wanted)
    assert len(result.trials) == 4
    assert set(result.trials["state"]) == {"complete"}
    assert result.best_values["optimizer.learning_rate"] == 3e-3
    assert result.best_value == result.trials["value"].min()
    best = read_config(result.best_config)
    assert (best.optimizer.learning_rate, best.manifest) == (3e-3, config.manifest)
    history = pd.read_csv(wanted.out / "trials" / "0000" / "history.csv")
    assert history["validation_loss"].min() == result.trials["value"][0]
    assert (wanted.out / "search.png").is_file()
    assert len(pd.read_csv(wanted.out / "trials.csv")) == 4
    assert not list(wanted.out.rglob("*.safetensors"))
    assert check_seal(wanted.out / "trials" / "0000")  # without the weights that were deleted


def test_a_stopped_search_continues_with_the_same_trials(
    config: TrainConfig, tmp_path: Path
) -> None:
    short = config.model_copy(update={"epochs": 1})
    uninterrupted = search(_search(short, out=str(tmp_path / "whole")))
    search(_search(short, n_trials=2))
    result = search(_search(short))
    for name in ("value", "optimizer.learning_rate", "batch_size"):
        assert result.trials[name].tolist() == uninterrupted.trials[name].tolist()
    assert len(search(_search(short)).trials) == 3  # nothing is left to do


def test_a_failed_trial_is_recorded_and_the_search_continues(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    space = {"optimizer.learning_rate": [1e-3, 1e30], "optimizer.name": ["sgd"]}
    result = search(_search(short, space=space, sampler="grid"))
    failed = result.trials[result.trials["state"] == "fail"]
    assert len(result.trials) == 2
    assert failed["reason"].str.contains("_loss is nan|_loss is inf").all()
    wild = {**space, "optimizer.learning_rate": [1e30]}
    with pytest.raises(TrainingError, match=r"no trial .*_loss is"):
        search(_search(short, out="other", space=wild, n_trials=1))


def test_a_bad_trial_is_stopped_early(config: TrainConfig) -> None:
    long = config.model_copy(update={"epochs": 4})
    # Random order; Optuna compares only after five trials.
    space = {"optimizer.learning_rate": [3e-3, 3.1e-3, 3.2e-3, 3.3e-3, 3.4e-3, 1e-9]}
    result = search(_search(long, space=space, n_warmup_epochs=1, n_trials=12))
    pruned = result.trials[result.trials["state"] == "pruned"]
    assert len(pruned)
    assert (pruned["n_epochs"] < 4).all()


def test_another_space_and_a_missing_validation_part_are_refused(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    search(_search(short, n_trials=1))
    with pytest.raises(ConfigError, match=r"another search .*space.*give another --out"):
        search(_search(short, space={"batch_size": [8]}))
    with pytest.raises(ConfigError, match=r"another search .*training.*give"):
        search(_search(config))
    kept, before = (config.out.parent / "search" / "manifest.csv").read_bytes(), config.manifest
    text = before.read_text()
    before.write_text(text.replace(",train,", ",validation,", 1))
    with pytest.raises(ConfigError, match=r"another search .*manifest.*give"):
        search(_search(short, n_trials=2))
    before.write_text(text)
    assert (config.out.parent / "search" / "manifest.csv").read_bytes() == kept
    with pytest.raises(ConfigError, match="the storage cannot be opened"):
        search(_search(short, storage="nosuch://database"))


def test_the_password_is_not_in_the_message(config: TrainConfig) -> None:
    wanted = _search(config, storage="postgresql://me:secret@127.0.0.1:1/none")
    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://me:\*\*\*@127.0.0.1") as raised:
        search(wanted)
    assert "secret" not in str(raised.value)


def test_two_workers_do_not_run_more_trials_than_requested(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _search(config.model_copy(update={"epochs": 1}), n_trials=2)
    # As if the last free trial had been seen by this worker while another was asking for it.
    monkeypatch.setattr(search_module, "_trials_to_run", lambda study, config: iter(range(4)))
    table = search(wanted).trials
    assert table["state"].tolist() == ["complete"] * 2
    assert len(list((wanted.out / "trials").iterdir())) == 2


@pytest.mark.slow
def test_workers_that_start_together_share_the_trials(
    config: TrainConfig, storage: dict[str, str]
) -> None:
    wanted = _search(config, n_trials=6, prune=False, **storage)
    workers = [_worker(wanted) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=400)
        assert worker.returncode == 0, errors
    table = search(wanted).trials
    assert table["state"].tolist() == ["complete"] * 6
    assert sorted(table["folder"]) == [f"{number:04d}" for number in range(6)]


@pytest.mark.slow
def test_two_workers_share_a_search_and_a_killed_one_loses_nothing(
    config: TrainConfig, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _search(config.model_copy(update={"epochs": 30}), n_trials=4, prune=False, **storage)
    workers = [_worker(wanted) for _ in range(2)]
    trials = wanted.out / "trials"
    while len(list(trials.glob("*/history.csv"))) < 2:
        assert workers[0].poll() is None, workers[0].communicate()[1]
        time.sleep(0.05)
    workers[1].kill()
    workers[1].communicate()
    _, errors = workers[0].communicate(timeout=400)
    assert workers[0].returncode == 0, errors
    monkeypatch.setattr(search_module, "POLL_SECONDS", 0.1)
    table = search(wanted).trials
    assert (table["state"] == "complete").sum() == 4
    assert (table["state"] == "fail").sum() == 1  # the killed one, tried again
    again = table[table.duplicated("folder", keep="last")]
    assert again["state"].tolist() == ["fail"]


CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _space_file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "train.toml").write_text('manifest = "m.csv"\nout = "run"\n', encoding="utf-8")
    path = tmp_path / "search.toml"
    path.write_text(f'train = "train.toml"\nout = "search"\n{text}', encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_and_a_trial_varies_the_training(tmp_path: Path) -> None:
    path = _space_file(tmp_path, '[space]\nbatch_size = [8, 16]\n"optimizer.name" = ["adam"]')
    config = read_search_config(path)
    assert config.out == tmp_path / "search"
    assert config.space["batch_size"] == (8, 16)
    values = {"batch_size": 8, "optimizer.name": "adam"}
    trial = config.training(values, tmp_path / "trial")
    assert (trial.batch_size, trial.optimizer.name, trial.out) == (8, "adam", tmp_path / "trial")
    assert trial.manifest == tmp_path / "m.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]", "space"),
        ("n_trial = 3\n[space]\nseed = [1]", "n_trial"),
        ("[space]\nbatch = [8]", "unknown key 'batch'"),
        ("[space]\nbatch_size = [0]", "batch_size .*got 0"),
        ("[space]\nseed = [1, 2]", "seed cannot be searched"),
        ("[space]\nlabel_smoothing = {low = 1, high = 0.1}", "needs low < high"),
        ("[space]\nseed = {low = 0, high = 1, log = true}", "low > 0 with"),
        ('sampler = "grid"\n[space]\nepochs = {low = 1, high = 9}', "a grid needs lists"),
        ('[space]\nbalance = ["none", "weights"]', "balance changes the definition"),
    ],
)
def test_an_invalid_space_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_search_config(_space_file(tmp_path, text))


def test_a_missing_search_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: .*no such"):
        read_search_config(tmp_path / "nowhere.toml")


def test_the_example_searches_what_the_paper_did() -> None:
    space = read_search_config(CONFIGS / "search.toml").space
    assert 16 in space["batch_size"]
    learning_rate = space["optimizer.learning_rate"]
    assert isinstance(learning_rate, Range)
    assert learning_rate.low <= 1e-4 <= learning_rate.high


@pytest.fixture
def study() -> optuna.Study:
    """Five trials of two settings: three complete, one pruned, one failed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        trial.suggest_categorical("name", ["adam", "sgd"])
        trial.report(rate, 1)
        if trial.number == 3:
            raise optuna.TrialPruned
        if trial.number == 4:
            trial.set_user_attr("reason", "out of memory")
            raise ValueError
        return rate

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=5, catch=ValueError)
    return study


def test_every_trial_is_a_row_with_its_settings_and_its_end(study: optuna.Study) -> None:
    table = trials_table(study)
    assert table["state"].tolist() == ["complete"] * 3 + ["pruned", "fail"]
    assert table["reason"].isna().tolist() == [True] * 4 + [False]
    assert table["value"][:3].tolist() == table["rate"][:3].tolist()
    assert set(table["name"]) <= {"adam", "sgd"}


def test_the_trials_are_plotted(study: optuna.Study, tmp_path: Path) -> None:
    write_plot(study, tmp_path, metric="validation_loss", is_synthetic=True)
    assert "evaluated on synthetic images" in (tmp_path / "search.svg").read_text(encoding="utf-8")
    with Image.open(tmp_path / "search.png") as image:
        assert image.size[0] > 1000
        assert len(image.convert("RGB").getcolors(image.size[0] * image.size[1])) > 10
