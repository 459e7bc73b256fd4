import json
from pathlib import Path

import pytest
from torch import nn

from glomerulab.models.registry import create_model
from glomerulab.training.config import TrainConfig
from glomerulab.training.cost import count_macs, measure_cost
from glomerulab.training.run import train


def test_macs_are_those_counted_by_hand() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 10 * 10, 5)
    )
    assert count_macs(layers, 10) == 8 * 3 * 9 * 100 + 800 * 5


def test_macs_of_resnet50_are_those_that_torchvision_states() -> None:
    model = create_model("resnet50", 1000).eval()
    assert count_macs(model, 224) / 1e9 == pytest.approx(4.09, abs=0.005)


def test_what_a_run_costs_is_measured_once_and_kept(config: TrainConfig, tmp_path: Path) -> None:
    run = train(config.model_copy(update={"epochs": 1}))
    cost = measure_cost(run, tmp_path / "cost.json")
    model = create_model("improved_seresnet_small", 2)
    assert cost.n_parameters == sum(weight.numel() for weight in model.parameters())
    assert 4 * cost.n_parameters < cost.n_bytes < 5 * cost.n_parameters
    assert min(cost.train_images_per_second, cost.inference_images_per_second) > 0
    kept = json.loads((tmp_path / "cost.json").read_text())
    (tmp_path / "cost.json").write_text(json.dumps(kept | {"n_macs": 1}))
    assert measure_cost(run, tmp_path / "cost.json").n_macs == 1
