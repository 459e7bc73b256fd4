from pathlib import Path

import pytest
import torch

from glomerulab.models.checkpoint import load_checkpoint, save_checkpoint
from glomerulab.models.registry import create_model, find_model
from tests.support.known_networks import EVERY_NETWORK, small_card


def _images(name: str) -> torch.Tensor:
    size = {"inception_v3": 299, "vgg16": 224}.get(name, 96)
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_a_network_returns_logits_and_all_its_weights_get_gradients(name: str) -> None:
    model = create_model(name, 3).train()
    logits = model(_images(name))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    unreached = [key for key, weight in model.named_parameters() if weight.grad is None]
    assert unreached == []


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_a_saved_network_loads_and_a_seed_reproduces_it(name: str, tmp_path: Path) -> None:
    card = small_card(model=name, input_size=96)
    model, twin = create_model(name, 4, seed=5).eval(), create_model(name, 4, seed=5).eval()
    save_checkpoint(tmp_path, model.state_dict(), card)
    loaded, loaded_card = load_checkpoint(tmp_path)
    images = _images(name)
    with torch.inference_mode():
        logits = model(images)
        assert torch.equal(twin(images), logits)
        assert torch.equal(loaded(images), logits)
    assert loaded_card == card


def test_another_seed_gives_other_weights_and_the_global_generator_is_unchanged() -> None:
    before = torch.random.get_rng_state()
    first = create_model("improved_seresnet_small", 2, seed=0).classifier.weight
    second = create_model("improved_seresnet_small", 2, seed=1).classifier.weight
    assert not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"unknown model 'resnet51'; known are improved_seresnet50"
    ):
        find_model("resnet51")
    with pytest.raises(ValueError, match="unknown model 'timm:nothing'"):
        find_model("timm:nothing")


def test_wrong_options_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match="does not take these options"):
        create_model("resnet50", 2, options={"reading": "paper"})
    with pytest.raises(ValueError, match="dropout must be"):
        create_model("improved_seresnet_small", 2, dropout=1.0)
    with pytest.raises(ValueError, match="n_classes must be"):
        create_model("improved_seresnet_small", 0)


def test_inception_takes_299_pixels() -> None:
    assert find_model("inception_v3").input_size == 299
