import torch
from torch import nn

from glomerulab.models.registry import create_model
from glomerulab.models.transfer.forward_order import (
    layers_in_forward_order,
    weights_in_forward_order,
)


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


def test_layers_come_as_an_image_passes_them_and_unreached_ones_last() -> None:
    assert layers_in_forward_order(_Backwards(), input_size=4) == [
        "first",
        "norm",
        "last",
        "unused",
    ]
    keys = weights_in_forward_order(_Backwards(), input_size=4)
    assert keys[:3] == ["first.weight", "first.bias", "norm.weight"]
    assert sorted(keys) == sorted(_Backwards().state_dict())


def test_a_shortcut_of_the_improved_network_stands_before_the_first_pair() -> None:
    order = layers_in_forward_order(create_model("improved_seresnet_small", 2), input_size=32)
    assert order[0] == "stem.0"
    assert order[-1] == "classifier"
    assert order.index("stages.1.0.shortcut") < order.index("stages.1.0.conv1")


def test_looking_changes_neither_mode_nor_averages() -> None:
    model = _Backwards().train()
    layers_in_forward_order(model, input_size=4)
    assert model.training
    assert model.norm.training
    assert model.norm.num_batches_tracked == 0
    assert not model.first._forward_pre_hooks
