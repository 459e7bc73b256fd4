from collections.abc import Iterator

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from glomerulab.models.registry import create_model
from glomerulab.training.batch_norm import remeasure_batch_norm


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


def test_after_few_large_steps_a_network_judges_as_it_trains() -> None:
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
