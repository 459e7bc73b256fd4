from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import distributed, nn
from torch.nn import functional

from glomerulab.models.registry import create_model
from glomerulab.training.batch_norm import GlobalBatch, remeasure_batch_norm


def _batches(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 6, 6, generator=generator) * 3 + 1 for _ in range(4)]


def test_the_averages_are_those_of_the_images_and_nothing_else_moves() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, momentum=0.3))
    weights = [weight.clone() for weight in model.parameters()]
    batches = _batches()
    remeasure_batch_norm(model, batches, accelerator=Accelerator(), use_bfloat16=False)
    # NumPy: a convolution of 1×1 is one matrix product in every pixel.
    matrix = model[0].weight.detach().numpy()[:, :, 0, 0]
    bias = model[0].bias.detach().numpy()
    maps = [np.einsum("oc,bchw->bhwo", matrix, batch.numpy()) + bias for batch in batches]
    flat = [one.reshape(-1, 5) for one in maps]
    mean = np.mean([one.mean(axis=0) for one in flat], axis=0)
    variance = np.mean([one.var(axis=0, ddof=1) for one in flat], axis=0)
    assert np.allclose(model[1].running_mean.numpy(), mean, atol=1e-5)
    assert np.allclose(model[1].running_var.numpy(), variance, rtol=1e-4)
    assert model[1].momentum == 0.3
    assert all(torch.equal(*pair) for pair in zip(weights, model.parameters(), strict=True))


def test_a_frozen_batch_norm_keeps_its_averages() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)).train()
    model[0].eval()
    remeasure_batch_norm(model, _batches(), accelerator=Accelerator(), use_bfloat16=False)
    assert model[0].running_mean.tolist() == [0.0, 0.0, 0.0]
    assert model[1].running_mean.abs().min() > 0


def test_momenta_come_back_when_an_image_cannot_be_read() -> None:
    def unreadable() -> Iterator[torch.Tensor]:
        yield _batches()[0]
        raise OSError("gone")

    model = nn.Sequential(nn.BatchNorm2d(3, momentum=0.2)).train()
    with pytest.raises(OSError, match="gone"):
        remeasure_batch_norm(model, unreadable(), accelerator=Accelerator(), use_bfloat16=False)
    assert model[0].momentum == 0.2


def test_after_few_large_steps_evaluation_agrees_with_training() -> None:
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    model = create_model("improved_seresnet_small", 2).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for batch in images.split(8):
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        trained = model(images)
        lagging = (model.eval()(images) - trained).abs().mean()
        model.train()
        batches = list(images.split(8))
        remeasure_batch_norm(model, batches, accelerator=Accelerator(), use_bfloat16=False)
        remeasured = (model.eval()(images) - trained).abs().mean()
    assert remeasured < 0.2 * lagging


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


def test_frozen_batch_norm_and_dropout_in_evaluation_do_not_change() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)).eval()
    images = torch.randn(2, 3, 4, 4)
    with GlobalBatch(process=1, n_processes=2):  # no process group: nothing may be summed
        assert torch.equal(layers(images), layers[0](images))


def test_each_process_drops_what_one_process_would_have_dropped() -> None:
    features = torch.ones(5, 7)
    torch.manual_seed(3)
    full = functional.dropout(features, 0.4, training=True)
    shares = []
    for process in (0, 1):
        torch.manual_seed(3)
        with GlobalBatch(process=process, n_processes=2) as batch:
            batch.n_images = 5
            shares.append(nn.Dropout(0.4)(features[process::2]))
    assert torch.equal(full[0::2], shares[0])
    assert torch.equal(full[1::2], shares[1])
