import pytest
import torch
from torch import nn

from glomerulab.models.networks.improved_seresnet import (
    ImprovedModule,
    ImprovedSeResNet,
    SqueezeExcitation,
    improved_seresnet50,
)


def _n_weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _n_main_conv_weights(module: ImprovedModule) -> int:
    convs = (module.conv1, module.conv2, module.conv3, module.conv4)
    return sum(conv.weight.numel() for conv in convs)


def _n_values_as_keras_counts(model: nn.Module) -> int:
    running = [b for name, b in model.named_buffers() if "num_batches" not in name]
    return _n_weights(model) + sum(values.numel() for values in running)


def test_a_module_of_equal_width_holds_12_w_squared_weights() -> None:
    n = _n_main_conv_weights(ImprovedModule(64, 64, 64))
    basic, bottleneck = 18 * 64**2, 17 * 64**2  # eq. (5) and (6)
    assert n == 12 * 64**2  # eq. (7)
    assert round(100 * (n - basic) / basic, 1) == -33.3
    assert round(100 * (n - bottleneck) / bottleneck, 1) == -29.4


def test_basic_and_bottleneck_blocks_have_the_weights_of_equations_5_and_6() -> None:
    timm_resnet = pytest.importorskip("timm.models.resnet")
    basic = timm_resnet.BasicBlock(64, 64)
    bottleneck = timm_resnet.Bottleneck(256, 64)
    for block, expected in ((basic, 18), (bottleneck, 17)):
        convs = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
        assert sum(conv.weight.numel() for conv in convs) == expected * 64**2


@pytest.mark.parametrize(
    ("reading", "inside", "millions"),
    [
        ("paper", False, 18.40),
        ("paper", True, 18.42),
        ("cited", True, 14.94),
        ("wide", True, 40.98),
    ],
)
def test_each_reading_has_the_parameters_counted_by_hand(
    reading: str, inside: bool, millions: float
) -> None:
    model = improved_seresnet50(4, reading=reading, activation_inside_pair=inside)
    assert round(_n_weights(model) / 1e6, 2) == millions


def test_only_the_cited_network_has_activations_inside_pairs() -> None:
    for reading, inside in (("paper", False), ("cited", True), ("wide", False)):
        by_default = improved_seresnet50(4, reading=reading)
        stated = improved_seresnet50(4, reading=reading, activation_inside_pair=inside)
        assert by_default.state_dict().keys() == stated.state_dict().keys()


def test_the_paper_reading_is_smaller_than_resnet50() -> None:
    timm = pytest.importorskip("timm")
    resnet = timm.create_model("resnet50", num_classes=4)
    assert round(_n_weights(resnet) / 1e6, 2) == 23.52
    assert _n_weights(improved_seresnet50(4)) < _n_weights(resnet)


@pytest.mark.parametrize(("n_classes", "n_values"), [(10, 14_986_378), (100, 15_032_548)])
def test_the_cited_reading_has_the_values_its_authors_report(n_classes: int, n_values: int) -> None:
    model = improved_seresnet50(n_classes, reading="cited", stem="cifar", conv_bias=True)
    assert _n_values_as_keras_counts(model) == n_values


def test_stage_outputs_have_the_shapes_the_paper_states() -> None:
    model = improved_seresnet50(4).eval()
    with torch.inference_mode():
        shapes = [tuple(maps.shape[1:]) for maps in model.stage_maps(torch.zeros(1, 3, 224, 224))]
    assert shapes == [(256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]


def test_squeeze_excitation_reduces_by_16_and_computes_equations_1_to_3() -> None:
    layer = SqueezeExcitation(64)
    assert layer.squeeze.weight.shape == (4, 64)
    maps = torch.rand(2, 64, 5, 3, generator=torch.Generator().manual_seed(1))
    z = maps.mean((2, 3))
    s = torch.sigmoid(torch.relu(z @ layer.squeeze.weight.T) @ layer.excite.weight.T)
    assert torch.allclose(layer(maps), maps * s[:, :, None, None])


def test_a_pair_without_activation_inside_is_a_separable_convolution() -> None:
    module = ImprovedModule(8, 8, 8, activation_inside_pair=False)
    maps = torch.rand(1, 8, 9, 9)
    composed = torch.einsum(
        "omy,mix->oiyx", module.conv2.weight[:, :, :, 0], module.conv1.weight[:, :, 0, :]
    )
    expected = nn.functional.conv2d(maps, composed, padding=1)
    assert torch.allclose(module.conv2(module.conv1(maps)), expected, atol=1e-5)


def test_unknown_readings_and_stems_and_unequal_depths_are_refused() -> None:
    with pytest.raises(ValueError, match="reading must be one of"):
        improved_seresnet50(4, reading="narrow")
    with pytest.raises(ValueError, match="stem must be"):
        improved_seresnet50(4, stem="none")
    with pytest.raises(ValueError, match="2 widths but 1 depths"):
        ImprovedSeResNet(4, widths=(8, 16), depths=(1,))
