from pathlib import Path

import pytest
import torch

from glomerulab.errors import ConfigError
from glomerulab.runtime.shipped import read_shipped_config
from glomerulab.training.compare import read_compare_config
from glomerulab.training.config import (
    ConstantSchedule,
    CosineSchedule,
    MultistepSchedule,
    cosine_rate,
    read_config,
    write_config,
)
from glomerulab.training.search import read_search_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'manifest = "m.csv"\nout = "run"\n{text}', encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_and_defaults_filled_in(tmp_path: Path) -> None:
    config = read_config(_file(tmp_path, ""))
    assert config.manifest == tmp_path / "m.csv"
    assert config.schedule == CosineSchedule()


def test_a_written_file_reads_back_equal(tmp_path: Path) -> None:
    text = 'augmentation = false\n[schedule]\nkind = "multistep"\nmilestones = [1, 2]\n'
    config = read_config(_file(tmp_path, text))
    assert config.augmentation is None
    write_config(config, tmp_path / "resolved.toml")
    assert read_config(tmp_path / "resolved.toml") == config
    assert "learning_rate = " in (tmp_path / "resolved.toml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'"),
        ("[optimizer]\nlr = 1", "unknown key 'optimizer.lr'"),
        ("[augmentation]\nblur = 1", "unknown key 'augmentation.blur'"),
        ("epochs = 0", "epochs must .* got 0"),
        ("batch_size = 0", "batch_size must .* got 0"),
        ("n_workers = -1", "n_workers must .* got -1"),
        ('device = "gpu"', "device must be 'auto', 'cpu' or 'cuda', got 'gpu'"),
        ("[model]\ninput_size = 16", "model.input_size must .* got 16"),
        ('[schedule]\nkind = "linear"', "schedule"),
        ('[schedule]\nkind = "multistep"\nmilestones = [3, 1]', "milestones must ascend"),
        ("seed = ", "not valid TOML"),
    ],
)
def test_an_invalid_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = _file(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert caught.value.where == str(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: .*no such configuration"):
        read_config(tmp_path / "nowhere.toml")


def test_overrides_win_and_their_paths_start_from_here(tmp_path: Path) -> None:
    overrides = {
        "out": "elsewhere",
        "optimizer.learning_rate": 0.5,
        "model.options.reading": "wide",
    }
    config = read_config(_file(tmp_path, "[optimizer]\nlearning_rate = 0.1"), overrides)
    assert config.out == Path.cwd() / "elsewhere"
    assert config.optimizer.learning_rate == 0.5
    assert config.model.options == {"reading": "wide"}
    with pytest.raises(ConfigError, match="not a table"):
        read_config(_file(tmp_path, "epochs = 1"), {"epochs.much": 1})


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        ({"model.name": "resnet50"}, {}),
        ({"model.name": "timm:resnet18", "epochs": 3}, {}),
        ({"model.options.x": 1, "model.name": "resnet50"}, {"x": 1}),
        ({"model.name": "resnet50", "model.options": {"y": 2}}, {"y": 2}),
        ({"model.name": "improved_seresnet_small"}, {"reading": "paper"}),
        ({"model.name": "improved_seresnet50"}, {"reading": "paper"}),
        ({"epochs": 3}, {"reading": "paper"}),
    ],
)
def test_options_of_the_files_network_are_not_given_to_another(
    overrides: dict[str, object], options: dict[str, object]
) -> None:
    assert read_config(CONFIGS / "network.toml", overrides).model.options == options


def test_a_shipped_configuration_works_where_it_is_copied_to(tmp_path: Path) -> None:
    for name in ("compare", "search"):
        (tmp_path / f"my-{name}.toml").write_text(read_shipped_config(name), encoding="utf-8")
    compare = read_compare_config(tmp_path / "my-compare.toml", {"manifest": tmp_path / "m.csv"})
    assert compare.out == tmp_path / "comparison"
    assert compare.training({}, compare.out).epochs == 60
    assert read_search_config(tmp_path / "my-search.toml").out == tmp_path / "search"
    (tmp_path / "network.toml").write_text(
        'manifest = "m.csv"\nout = "run"\nepochs = 7\n', encoding="utf-8"
    )
    assert compare.training({}, compare.out).epochs == 7


def test_a_shipped_configuration_that_is_not_there_is_named_with_its_command(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"glomerulab config default > default\.toml"):
        read_config(tmp_path / "default.toml")


def test_the_papers_configuration_is_the_papers() -> None:
    config = read_config(CONFIGS / "paper.toml")
    assert (config.epochs, config.batch_size, config.optimizer.learning_rate) == (200, 16, 1e-4)
    assert config.schedule == MultistepSchedule(milestones=(60, 120, 160), gamma=0.1)
    assert (config.model.name, config.model.input_size) == ("improved_seresnet50", 224)
    assert config.model.options == {"reading": "paper", "activation_inside_pair": True}
    assert config.model.head == "softmax"
    assert config.model.dropout > 0
    assert config.augmentation is None  # it was done before, offline


def test_the_recommended_configuration_is_a_probe_of_any_network() -> None:
    config = read_config(CONFIGS / "default.toml")
    assert (config.kind, config.model.name, config.start.weights) == ("probe", "lite2", "auto")


def test_equation_8_equals_torchs_multistep() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    schedule = MultistepSchedule(milestones=(60, 120, 160), gamma=0.1)
    peer = torch.optim.lr_scheduler.MultiStepLR(optimizer, [60, 120, 160], gamma=0.1)
    for epoch in range(200):
        ours = schedule.rate(epoch, initial=0.1, n_epochs=200)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()


def test_the_cosine_falls_from_the_initial_rate_towards_nothing() -> None:
    rates = [cosine_rate(epoch, initial=1.0, n_epochs=10) for epoch in range(11)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0)
    assert rates == sorted(rates, reverse=True)


def test_the_cosine_may_rise_first() -> None:
    rates = [cosine_rate(epoch, initial=1.0, n_epochs=10, n_warmup=3) for epoch in range(4)]
    assert rates == [0.25, 0.5, 0.75, 1.0]


def test_constant_stays() -> None:
    assert ConstantSchedule().rate(7, initial=0.3, n_epochs=9) == 0.3


@pytest.mark.parametrize(
    ("overrides", "subject"),
    [
        ({"epochs": "two"}, "epochs"),
        ({"epochs.much": 1}, "epochs"),
        ({"optimizer.lr": 1}, "optimizer.lr"),
        ({"schedule.kind": "cosine", "schedule.n_warmup": -1}, "n_warmup"),
        ({"schedule.kind": "step"}, "schedule.kind"),
        ({"model.input_size": "big"}, "model.input_size"),
    ],
)
def test_a_wrong_value_of_the_caller_is_not_blamed_on_the_file(
    tmp_path: Path, overrides: dict[str, object], subject: str
) -> None:
    with pytest.raises(ConfigError, match=subject) as caught:
        read_config(_file(tmp_path, "epochs = 1"), overrides)
    assert caught.value.where is None


def test_a_wrong_value_of_the_file_is_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size") as caught:
        read_config(_file(tmp_path, "batch_size = 0"), {"epochs": 2})
    assert caught.value.where is not None


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("epoch", "epochs"),
        ("learning_rate", "optimizer.learning_rate"),
        ("model.names", "model.name"),
    ],
)
def test_an_unknown_key_suggests_the_one_that_was_meant(
    tmp_path: Path, key: str, suggestion: str
) -> None:
    with pytest.raises(ConfigError, match=f"did you mean .*'{suggestion}'"):
        read_config(_file(tmp_path, ""), {key: 1})
