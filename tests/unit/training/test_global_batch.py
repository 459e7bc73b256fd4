"""What two processes give together is tested in tests/integration/test_several_processes.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional

from glomerulab.training.global_batch import GlobalBatch


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(6, 4, 5, 3), (6, 4)])
@pytest.mark.usefixtures("group_of_one")
def test_batch_norm_is_that_of_torch_with_its_gradients_and_averages(
    affine: bool, shape: tuple[int, ...]
) -> None:
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    ours, theirs = (kind(4, affine=affine, momentum=0.3) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    images = [
        (torch.randn(shape, generator=generator) * 3 + 100).requires_grad_() for _ in range(2)
    ]
    images[1].data.copy_(images[0].data)
    ramp = torch.arange(images[0].numel()).reshape(shape).float()
    with GlobalBatch(process=0, n_processes=1):
        (ours(images[0]) * ramp).sum().backward()
    (theirs(images[1]) * ramp).sum().backward()
    assert torch.allclose(ours.running_mean, theirs.running_mean)
    assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-4)
    assert torch.allclose(images[0].grad, images[1].grad, atol=2e-3)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-2)


def test_a_frozen_batch_norm_and_a_dropout_that_judges_are_left_alone() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    images = torch.randn(2, 3, 4, 4)
    with GlobalBatch(process=1, n_processes=2):  # no process group: nothing may be summed
        assert torch.equal(layers(images), layers[0](images))


def test_each_process_drops_what_one_process_would_have_dropped() -> None:
    features = torch.ones(5, 7)
    torch.manual_seed(3)
    whole = functional.dropout(features, 0.4, training=True)
    shares = []
    for process in (0, 1):
        torch.manual_seed(3)
        with GlobalBatch(process=process, n_processes=2) as batch:
            batch.n_images = 5
            shares.append(nn.Dropout(0.4)(features[process::2]))
    assert torch.equal(whole[0::2], shares[0])
    assert torch.equal(whole[1::2], shares[1])
