from pathlib import Path

import pytest
import torch

from glomerulab.errors import CheckpointError
from glomerulab.models.registry import create_model
from glomerulab.training.config import OptimizerConfig
from glomerulab.training.loop import make_optimizer
from glomerulab.training.state import TrainingState, has_state, load_state, save_state


def _state(name: str = "improved_seresnet_small", *, seed: int = 0) -> TrainingState:
    model = create_model(name, 2, seed=seed).to(memory_format=torch.channels_last)
    return TrainingState(model, make_optimizer(model, OptimizerConfig()), [])


def _step(state: TrainingState) -> None:
    state.model(torch.ones(2, 3, 32, 32)).square().sum().backward()
    state.optimizer.step()


def test_weights_moments_and_history_come_back(tmp_path: Path) -> None:
    saved = _state()
    _step(saved)
    saved.history.append({"epoch": 1, "train_loss": 0.1})
    save_state(tmp_path, saved, saved.model.state_dict())
    loaded = _state(seed=9)
    load_state(tmp_path, loaded)
    assert has_state(tmp_path)
    assert loaded.history == saved.history
    ours, theirs = loaded.optimizer.state_dict()["state"], saved.optimizer.state_dict()["state"]
    for index, values in theirs.items():
        for name, value in values.items():
            assert torch.equal(ours[index][name], value)
            assert ours[index][name].stride() == value.stride()


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    saved = _state()
    save_state(tmp_path, saved, saved.model.state_dict())
    with pytest.raises(CheckpointError, match="another model or optimiser"):
        load_state(tmp_path, _state("timm:resnet18"))


def test_a_folder_without_a_state_has_none(tmp_path: Path) -> None:
    assert not has_state(tmp_path)
