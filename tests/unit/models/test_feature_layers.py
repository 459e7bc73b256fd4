import pytest
import torch
from torch import nn

from glomerulab.models.feature_layers import classifier, features_seen, last_stage, stages_of
from glomerulab.models.registry import MODELS, create_model
from tests.unit.models.test_registry import HEAVY

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else [])
    for name in (*MODELS, "timm:resnet18")
]


@pytest.mark.parametrize("name", NAMES)
def test_the_last_stage_gives_the_last_maps_and_the_classifier_gives_the_logits(name):
    model = create_model(name, 3).eval()
    maps: list[torch.Tensor] = []
    last_stage(model).register_forward_hook(lambda _, __, output: maps.append(output))
    size = 299 if name == "inception_v3" else 224
    with torch.inference_mode(), features_seen(model) as vectors:
        logits = model(torch.rand(2, 3, size, size))
        assert maps[0].ndim == 4
        assert 5 <= maps[0].shape[-1] <= 8
        assert torch.allclose(classifier(model)(vectors[0]), logits, atol=1e-5)
        n_seen = len(vectors)
    model(torch.rand(2, 3, size, size))
    assert len(vectors) == n_seen  # nobody listens any more


def test_the_last_of_the_stages_is_the_last_stage():
    model = create_model("improved_seresnet_small", 3)
    assert len(stages_of(model)) == 4
    assert stages_of(model)[-1] is last_stage(model)


def test_a_network_that_says_neither_is_refused():
    with pytest.raises(ValueError, match="does not say where its last stage is"):
        last_stage(nn.Sequential(nn.Conv2d(3, 1, 1)))
    with pytest.raises(ValueError, match="does not end in a fully connected layer"):
        classifier(nn.Sequential(nn.Conv2d(3, 1, 1)))
