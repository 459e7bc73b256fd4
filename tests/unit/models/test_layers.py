import pytest
import torch
from torch import nn

from glomerulab.models.layers import (
    Stage,
    find_classifier,
    find_stages,
    freeze_batchnorm_stats,
    freeze_first,
    layers_in_forward_order,
    record_features,
    weights_in_forward_order,
)
from glomerulab.models.registry import create_model
from tests.support.known_networks import EVERY_NETWORK


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_the_last_stage_returns_maps_and_the_classifier_returns_logits(name):
    model = create_model(name, 3).eval()
    maps: list[torch.Tensor] = []
    stage = find_stages(model)[-1].layer
    stage.register_forward_hook(lambda _, __, output: maps.append(output))
    size = 299 if name == "inception_v3" else 224
    with torch.inference_mode(), record_features(model) as vectors:
        logits = model(torch.rand(2, 3, size, size))
        assert maps[0].ndim == 4
        assert 5 <= maps[0].shape[-1] <= 8
        assert torch.allclose(find_classifier(model)(vectors[0]), logits, atol=1e-5)
        n_seen = len(vectors)
    model(torch.rand(2, 3, size, size))
    assert len(vectors) == n_seen  # the hooks are removed


def test_the_small_network_declares_four_stages():
    assert len(find_stages(create_model("improved_seresnet_small", 3))) == 4


def test_a_network_without_stages_has_none_and_one_without_classifier_is_refused():
    assert find_stages(nn.Sequential(nn.Conv2d(3, 1, 1))) == []
    with pytest.raises(ValueError, match="Sequential has no layer that gives the logits"):
        find_classifier(nn.Sequential(nn.Conv2d(3, 1, 1)))


def _maps() -> torch.Tensor:
    return torch.arange(2 * 5 * 4 * 4).reshape(2, 5, 4, 4).float()


@pytest.mark.parametrize("n_prefix", [0, 1, 5])
def test_the_tokens_of_patches_become_maps_without_class_token_and_registers(n_prefix):
    patches = _maps().flatten(2).transpose(1, 2)
    tokens = torch.cat([torch.full((2, n_prefix, 5), -1.0), patches], dim=1)
    stage = Stage(nn.Identity(), 5, n_prefix)
    assert torch.equal(stage.maps(tokens), _maps())
    assert torch.equal(stage.maps(patches), _maps())  # a block that does not see the class token
    assert stage.tensor((torch.zeros(2, 9, 7), tokens)) is tokens


@pytest.mark.parametrize("declared", [5, None])
def test_maps_with_channels_last_are_brought_to_the_front(declared):
    stage = Stage(nn.Identity(), declared, channels_last=True)
    assert torch.equal(stage.maps(_maps().permute(0, 2, 3, 1)), _maps())
    assert torch.equal(Stage(nn.Identity(), 5).maps(_maps()), _maps())


def test_an_output_without_height_and_width_gives_no_maps():
    assert Stage(nn.Identity(), 5).tensor(torch.zeros(2, 5)) is None
    assert Stage(nn.Identity(), 5, 1).maps(torch.zeros(2, 0, 5)) is None


def _model() -> nn.Sequential:
    """Layers of 24, 16, 136, 16 and 18 parameters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 17, 1, bias=False),
        nn.BatchNorm2d(17),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(17, 2),
    )


PRETRAINED = ("0.weight", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, ()),
        (0.11, ()),
        (24 / 210, ("0",)),
        (0.25, ("0", "1")),
        (0.75, ("0", "1")),
        (176 / 210, ("0", "1", "2")),
        (1.0, ("0", "1", "2", "3")),
    ],
)
def test_the_first_layers_that_fit_the_share_are_frozen(
    share: float, expected: tuple[str, ...]
) -> None:
    model = _model()
    assert freeze_first(model, PRETRAINED, share=share, input_size=4) == expected
    frozen = {key.partition(".")[0] for key, w in model.named_parameters() if not w.requires_grad}
    assert frozen == set(expected)


def test_a_partly_pretrained_layer_is_never_frozen() -> None:
    model = _model()
    assert freeze_first(model, ("0.weight", "1.weight"), share=1.0, input_size=4) == ("0",)
    assert model[1].bias.requires_grad


def test_frozen_norms_stay_in_evaluation_mode_while_others_train() -> None:
    model = _model()
    freeze_first(model, PRETRAINED, share=0.25, input_size=4)
    freeze_batchnorm_stats(model.train())
    assert (model[1].training, model[3].training) == (False, True)
    before = model[1].running_mean.clone()
    model(torch.rand(4, 3, 4, 4))
    assert torch.equal(model[1].running_mean, before)
    assert not torch.equal(model[3].running_mean, torch.zeros(17))


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 1.5"):
        freeze_first(_model(), (), share=1.5, input_size=4)


class _Backwards(nn.Module):
    """Names its layers last to first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.unused = nn.Linear(1, 1)
        self.first = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(images)).mean((2, 3)))


def test_layers_follow_the_forward_pass_and_skipped_ones_come_last() -> None:
    assert layers_in_forward_order(_Backwards(), input_size=4) == [
        "first",
        "norm",
        "last",
        "unused",
    ]
    keys = weights_in_forward_order(_Backwards(), input_size=4)
    assert keys[:3] == ["first.weight", "first.bias", "norm.weight"]
    assert sorted(keys) == sorted(_Backwards().state_dict())


def test_a_shortcut_of_the_improved_network_precedes_the_first_pair() -> None:
    order = layers_in_forward_order(create_model("improved_seresnet_small", 2), input_size=32)
    assert order[0] == "stem.0"
    assert order[-1] == "classifier"
    assert order.index("stages.1.0.shortcut") < order.index("stages.1.0.conv1")


def test_finding_the_order_changes_neither_mode_nor_statistics() -> None:
    model = _Backwards().train()
    layers_in_forward_order(model, input_size=4)
    assert model.training
    assert model.norm.training
    assert model.norm.num_batches_tracked == 0
    assert not model.first._forward_pre_hooks
