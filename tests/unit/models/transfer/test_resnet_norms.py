import torch
from torch import nn

from glomerulab.models.transfer.resnet_norms import scale_and_offset, set_identity

MAPS = torch.randn(16, 3, 20, 20, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_scale_and_offset_are_what_a_norm_does_when_it_judges() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.weight, -1, 1)
    nn.init.uniform_(norm.bias, -1, 1)
    norm(MAPS)
    weights = {f"bn1.{key}": value for key, value in norm.state_dict().items()}
    scale, offset = scale_and_offset(weights, "bn1")
    expected = norm.eval()(MAPS)
    found = MAPS * scale[:, None, None] + offset[:, None, None]
    assert torch.allclose(found, expected, atol=1e-6)


def test_an_identity_adds_its_offset_whether_it_trains_or_judges() -> None:
    norm = nn.BatchNorm2d(3)
    offset = torch.tensor([1.0, -2.0, 0.5])
    set_identity(norm, MAPS, offset)
    for mode in (False, True):
        assert torch.allclose(norm.train(mode)(MAPS), MAPS + offset[:, None, None], atol=1e-2)
