import json
from pathlib import Path

import pandas as pd
import pytest
import tomli_w
from torch import nn

from glomerulab.errors import ConfigError
from glomerulab.models.registry import create_model
from glomerulab.reports.run.comparison import write_comparison
from glomerulab.training.compare import (
    CompareConfig,
    compare,
    count_macs,
    measure_cost,
    read_compare_config,
    run_config,
)
from glomerulab.training.config import TrainConfig, write_config
from glomerulab.training.run import train

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _compare(config: TrainConfig, models: dict[str, dict[str, object]]) -> CompareConfig:
    folder = config.manifest.parent
    write_config(config.model_copy(update={"epochs": 1}), folder / "train.toml")
    table = {"train": "train.toml", "out": "comparison", "models": models}
    (folder / "compare.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return read_compare_config(folder / "compare.toml")


def test_models_are_trained_alike_and_listed_in_one_table(config: TrainConfig) -> None:
    models = {"small": {}, "test": {"model.name": "timm:test_resnet"}}
    wanted = _compare(config, models)
    trained = compare(wanted)
    seals = [(run / "seal.json").stat().st_mtime_ns for run in trained.runs.values()]
    again = compare(wanted)  # nothing is trained twice
    assert [(run / "seal.json").stat().st_mtime_ns for run in again.runs.values()] == seals
    assert again.costs == trained.costs
    report = write_comparison(list(again.runs.values()), wanted.out, costs=again.costs)
    table = pd.read_csv(wanted.out / "table1.csv")
    assert table["model"].tolist() == ["small", "test"]
    assert table["n_parameters"].tolist() == [c.n_parameters for c in trained.costs.values()]
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert len(report.comparisons) == 1
    page = report.html_path.read_text(encoding="utf-8")
    assert "Scores and costs" in page
    markdown = (wanted.out / "table1.md").read_text(encoding="utf-8")
    assert "| Model | Accuracy | Macro F1 | Macro ROC-AUC |" in markdown
    assert markdown.endswith("Research use only.\n")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"one": {}}, "models"),
        ({"a": {}, "b": {"epochs": 3}}, "b: epochs must be the same for all models"),
        ({"a": {}, "../b": {}}, "'../b' cannot name a folder"),
        ({"a": {}, "b": {"model.size": "x"}}, "unknown key 'model.size'"),
    ],
)
def test_an_invalid_setting_is_named(
    config: TrainConfig, models: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        _compare(config, models)


def test_the_example_is_table_1() -> None:
    wanted = read_compare_config(CONFIGS / "compare.toml")
    names = {run_config(wanted, name).model.name for name in wanted.models}
    assert {"improved_seresnet50", "vgg16", "inception_v3", "resnet50"} <= names


def test_the_papers_comparison_is_under_its_own_protocol() -> None:
    wanted = read_compare_config(CONFIGS / "compare-paper.toml")
    runs = {name: run_config(wanted, name) for name in wanted.models}
    assert list(runs) == ["vgg16", "inception_v3", "resnet50", "improved_seresnet50"]
    assert {run.epochs for run in runs.values()} == {200}
    assert all(run.allow_image_level_split for run in runs.values())
    assert {run.model.input_size for run in runs.values()} == {224}


def test_given_settings_are_shared_and_a_models_own_are_kept(config: TrainConfig) -> None:
    path = _compare(config, {"a": {}, "b": {"batch_size": 3}}) and config.manifest.parent
    given = {"settings": {"batch_size": 2, "epochs": 4}}
    wanted = read_compare_config(path / "compare.toml", given)
    a, b = run_config(wanted, "a"), run_config(wanted, "b")
    assert (a.batch_size, b.batch_size) == (2, 3)
    assert a.epochs == b.epochs == 4
    with pytest.raises(ConfigError, match="no_such_key"):
        read_compare_config(path / "compare.toml", {"settings": {"no_such_key": 1}})


def test_macs_are_those_counted_by_hand() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5)
    )
    assert count_macs(layers, 10) == 8 * 3 * 9 * 100 + 800 * 5


def test_macs_of_resnet50_are_those_that_torchvision_states() -> None:
    model = create_model("resnet50", 1000).eval()
    assert count_macs(model, 224) / 1e9 == pytest.approx(4.09, abs=0.005)


def test_the_cost_of_a_run_is_measured_once_and_cached(config: TrainConfig, tmp_path: Path) -> None:
    run = train(config.model_copy(update={"epochs": 1}))
    cost = measure_cost(run, tmp_path / "cost.json")
    model = create_model("improved_seresnet_small", 2)
    assert cost.n_parameters == sum(weight.numel() for weight in model.parameters())
    assert 4 * cost.n_parameters < cost.n_bytes < 5 * cost.n_parameters
    assert min(cost.train_images_per_second, cost.inference_images_per_second) > 0
    kept = json.loads((tmp_path / "cost.json").read_text())
    (tmp_path / "cost.json").write_text(json.dumps(kept | {"n_macs": 1}))
    assert measure_cost(run, tmp_path / "cost.json").n_macs == 1
