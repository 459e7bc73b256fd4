from pathlib import Path

import pandas as pd
import pytest
import tomli_w

from glomerulab.errors import ConfigError
from glomerulab.reports.run.comparison import write_comparison
from glomerulab.training.compare import CompareConfig, compare, read_compare_config, run_config
from glomerulab.training.config import TrainConfig, write_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def _compare(config: TrainConfig, models: dict[str, dict[str, object]]) -> CompareConfig:
    folder = config.manifest.parent
    write_config(config.model_copy(update={"epochs": 1}), folder / "train.toml")
    table = {"train": "train.toml", "out": "comparison", "models": models}
    (folder / "compare.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    return read_compare_config(folder / "compare.toml")


def test_models_are_trained_alike_and_stand_in_one_table(config: TrainConfig) -> None:
    models = {"small": {}, "test": {"model.name": "timm:test_resnet"}}
    told = _compare(config, models)
    compared = compare(told)
    seals = [(run / "seal.json").stat().st_mtime_ns for run in compared.runs.values()]
    again = compare(told)  # nothing is trained twice
    assert [(run / "seal.json").stat().st_mtime_ns for run in again.runs.values()] == seals
    assert again.costs == compared.costs
    report = write_comparison(list(again.runs.values()), told.out, costs=again.costs)
    table = pd.read_csv(told.out / "table1.csv")
    assert table["model"].tolist() == ["small", "test"]
    assert table["n_parameters"].tolist() == [c.n_parameters for c in compared.costs.values()]
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert len(report.comparisons) == 1
    page = report.html_path.read_text(encoding="utf-8")
    assert "Scores and costs" in page
    markdown = (told.out / "table1.md").read_text(encoding="utf-8")
    assert markdown.splitlines()[0].startswith("| Model | Accuracy | Macro F1 | Macro ROC-AUC |")
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
def test_what_is_wrong_is_named(
    config: TrainConfig, models: dict[str, dict[str, object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        _compare(config, models)


def test_the_example_is_table_1() -> None:
    told = read_compare_config(CONFIGS / "compare.toml")
    names = {run_config(told, name).model.name for name in told.models}
    assert {"improved_seresnet50", "vgg16", "inception_v3", "resnet50"} <= names
