from pathlib import Path

import pytest

from glomerulab.errors import ConfigError
from glomerulab.training.search_config import Range, read_search_config, trial_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "train.toml").write_text('manifest = "m.csv"\nout = "run"\n', encoding="utf-8")
    path = tmp_path / "search.toml"
    path.write_text(f'train = "train.toml"\nout = "search"\n{text}', encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_and_a_trial_varies_the_training(tmp_path: Path) -> None:
    path = _file(tmp_path, '[space]\nbatch_size = [8, 16]\n"optimizer.name" = ["adam"]')
    config = read_search_config(path)
    assert config.out == tmp_path / "search"
    assert config.space["batch_size"] == (8, 16)
    values = {"batch_size": 8, "optimizer.name": "adam"}
    trial = trial_config(config, values, tmp_path / "trial")
    assert (trial.batch_size, trial.optimizer.name, trial.out) == (8, "adam", tmp_path / "trial")
    assert trial.manifest == tmp_path / "m.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[space]", "space"),
        ("n_trial = 3\n[space]\nseed = [1]", "n_trial"),
        ("[space]\nbatch = [8]", "unknown key 'batch'"),
        ("[space]\nbatch_size = [0]", "batch_size: .* got 0"),
        ("[space]\nseed = [1, 2]", "seed cannot be searched"),
        ("[space]\nlabel_smoothing = {low = 1, high = 0.1}", "needs low < high"),
        ("[space]\nseed = {low = 0, high = 1, log = true}", "low > 0 with"),
        ('sampler = "grid"\n[space]\nepochs = {low = 1, high = 9}', "a grid needs lists"),
        ('[space]\nbalance = ["none", "weights"]', "balance changes what the validation loss is"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_search_config(_file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read"):
        read_search_config(tmp_path / "nowhere.toml")


def test_the_example_searches_what_the_paper_did() -> None:
    space = read_search_config(CONFIGS / "search.toml").space
    assert 16 in space["batch_size"]
    learning_rate = space["optimizer.learning_rate"]
    assert isinstance(learning_rate, Range)
    assert learning_rate.low <= 1e-4 <= learning_rate.high
