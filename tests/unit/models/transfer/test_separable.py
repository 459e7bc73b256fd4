import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from glomerulab.models.networks.improved_seresnet import ImprovedSeResNet, improved_seresnet50
from glomerulab.models.transfer.separable import (
    is_basic_resnet,
    scale_and_offset,
    separable_pair,
    set_identity,
    transfer_basic_resnet,
)

WIDTHS, DEPTHS = (64, 16, 24, 16), (1, 2, 1, 1)
IMAGES = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(7))


def _composed(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    return torch.einsum("omy,mix->oiyx", column[:, :, :, 0], row[:, :, 0, :])


def _separable_kernel(n_out: int, n_in: int, rank: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(rank, n_in, 1, 3, generator=generator)
    return _composed(row, torch.randn(n_out, rank, 3, 1, generator=generator)) / rank


@settings(max_examples=30)
@given(
    n_out=st.integers(1, 6), n_in=st.integers(1, 6), rank=st.integers(1, 8), extra=st.integers(0, 3)
)
def test_a_kernel_of_at_most_the_rank_is_recovered_exactly(
    n_out: int, n_in: int, rank: int, extra: int
) -> None:
    kernel = _separable_kernel(n_out, n_in, rank, seed=n_out + 10 * n_in)
    pair = separable_pair(kernel, rank + extra)
    assert pair.row.shape == (rank + extra, n_in, 1, 3)
    assert pair.column.shape == (n_out, rank + extra, 3, 1)
    assert torch.allclose(_composed(pair.row, pair.column), kernel, atol=1e-4)
    assert pair.energy == pytest.approx(1.0, abs=1e-6)


def test_a_pair_convolves_like_its_kernel_also_with_a_stride() -> None:
    kernel = _separable_kernel(5, 3, 4, seed=1)
    pair = separable_pair(kernel, 4)
    maps = torch.randn(2, 3, 11, 12, generator=torch.Generator().manual_seed(2))
    for stride in (1, 2):
        rows = nn.functional.conv2d(maps, pair.row, stride=(1, stride), padding=(0, 1))
        ours = nn.functional.conv2d(rows, pair.column, stride=(stride, 1), padding=(1, 0))
        peer = nn.functional.conv2d(maps, kernel, stride=stride, padding=1)
        assert torch.allclose(ours, peer, atol=1e-5)


def test_energy_is_the_kept_share_of_the_squared_weights() -> None:
    kernel = torch.randn(6, 6, 3, 3, generator=torch.Generator().manual_seed(3))
    pair = separable_pair(kernel, 6)
    lost = (kernel - _composed(pair.row, pair.column)).square().sum() / kernel.square().sum()
    assert pair.energy == pytest.approx(1.0 - lost.item(), abs=1e-5)
    assert separable_pair(torch.zeros(2, 2, 3, 3), 1).energy == 1.0


def test_no_other_pair_of_the_rank_is_closer_to_the_kernel() -> None:
    kernel = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(4))
    pair = separable_pair(kernel, 3)
    lost = (kernel - _composed(pair.row, pair.column)).square().sum()
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        nudge = [0.05 * torch.randn(half.shape, generator=generator) for half in pair_halves(pair)]
        other = _composed(pair.row + nudge[0], pair.column + nudge[1])
        assert (kernel - other).square().sum() > lost


def pair_halves(pair: object) -> tuple[torch.Tensor, torch.Tensor]:
    return pair.row, pair.column


def _resnet() -> nn.Module:
    """A ResNet of timm whose 3×3 kernels are separable within the width of the pairs."""
    resnet = pytest.importorskip("timm.models.resnet")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = resnet.ResNet(resnet.BasicBlock, DEPTHS, channels=WIDTHS, num_classes=0)
    generator = torch.Generator().manual_seed(6)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            n_out, n_in = layer.weight.shape[:2]
            layer.weight.data = _separable_kernel(n_out, n_in, n_out, seed=n_in) * 0.3
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(-1.5, 1.5, generator=generator)
            layer.bias.data.uniform_(-0.3, 0.3, generator=generator)
            layer.momentum = None
            if name == "bn1" or name.endswith(("bn2", "downsample.1")):
                layer.bias.data += 40.0  # so that no ReLU of the stream cuts anything
    with torch.no_grad():
        model.train()(IMAGES)
    return model.eval()


def _improved(reading: str, *, inside: bool) -> ImprovedSeResNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network = ImprovedSeResNet(
            3, reading=reading, widths=WIDTHS, depths=DEPTHS, activation_inside_pair=inside
        )
    return network.eval()


@pytest.mark.parametrize("reading", ["paper", "cited"])
def test_a_separable_resnet_with_a_positive_stream_is_recovered_exactly(reading: str) -> None:
    resnet, ours = _resnet(), _improved(reading, inside=False)
    energies = transfer_basic_resnet(ours, resnet.state_dict(), IMAGES)
    assert [pair.energy for pair in energies] == pytest.approx([1.0] * 10, abs=1e-5)
    assert energies[2].layer == "layer2.0.conv1"
    others = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(8))
    with torch.inference_mode():
        expected = resnet.forward_features(others)
        found = ours.norm(ours.stage_maps(others)[-1]).relu()[:, : WIDTHS[-1]]
    assert expected.min() > 0
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_training_and_evaluation_mode_agree_after_the_norms_are_measured() -> None:
    ours = _improved("paper", inside=False)
    transfer_basic_resnet(ours, _resnet().state_dict(), IMAGES)
    with torch.no_grad():
        evaluated, trained = ours(IMAGES), ours.train()(IMAGES)
    assert torch.allclose(evaluated, trained, rtol=1e-3, atol=1e-3)


def test_an_opened_relu_inside_the_pairs_costs_little_away_from_the_border() -> None:
    resnet = _resnet()
    closeness = []
    for inside in (False, True):
        ours = _improved("cited", inside=inside)
        transfer_basic_resnet(ours, resnet.state_dict(), IMAGES)
        with torch.inference_mode():
            expected = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(IMAGES))))
            expected = resnet.layer1(expected)[..., 2:-2, 2:-2]
            found = ours.stages[1][0].norm1(ours.stage_maps(IMAGES)[0])[..., 2:-2, 2:-2]
        both = torch.stack([found.relu().flatten(), expected.flatten()])
        closeness.append(torch.corrcoef(both)[0, 1].item())
    assert closeness[0] > 0.9999
    assert 0.85 < closeness[1] < closeness[0]


def test_is_basic_resnet_accepts_only_the_layout_of_the_network() -> None:
    timm = pytest.importorskip("timm")
    weights = timm.create_model("resnet34", num_classes=0).state_dict()
    assert is_basic_resnet(weights, improved_seresnet50(4))
    assert is_basic_resnet(weights, improved_seresnet50(4, reading="cited"))
    assert not is_basic_resnet(weights, improved_seresnet50(4, reading="wide"))
    assert not is_basic_resnet(weights, improved_seresnet50(4, stem="cifar"))
    for name in ("resnet18", "resnet50"):
        others = timm.create_model(name, num_classes=0).state_dict()
        assert not is_basic_resnet(others, improved_seresnet50(4))
    del weights["layer4.2.conv2.weight"]
    assert not is_basic_resnet(weights, improved_seresnet50(4))


def test_invalid_shapes_and_ranks_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"kernel must have shape \(O, I, 3, 3\), got \(2, 2, 1, 1\)"
    ):
        separable_pair(torch.zeros(2, 2, 1, 1), 1)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        separable_pair(torch.zeros(2, 2, 3, 3), 0)


MAPS = torch.randn(16, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_scale_and_offset_reproduce_a_norm_in_evaluation_mode() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.uniform_(norm.bias, -1, 1)
    norm(MAPS)
    weights = {f"bn1.{key}": value for key, value in norm.state_dict().items()}
    scale, offset = scale_and_offset(weights, "bn1")
    expected = norm.eval()(MAPS)
    found = MAPS * scale[:, None, None] + offset[:, None, None]
    assert torch.allclose(found, expected, atol=1e-6)


def test_an_identity_norm_adds_its_offset_in_both_modes() -> None:
    norm = nn.BatchNorm2d(3)
    offset = torch.tensor([1.0, -2.0, 0.5])
    set_identity(norm, MAPS, offset)
    for mode in (False, True):
        assert torch.allclose(norm.train(mode)(MAPS), MAPS + offset[:, None, None], atol=1e-2)
