from pathlib import Path

import pytest
import torch
from torch import nn

from glomerulab.errors import ConfigError
from glomerulab.models.hardware import MIN_BFLOAT16_SIZE, autocast, has_bfloat16, uses_bfloat16
from glomerulab.models.registry import create_model


def test_bfloat16_is_used_only_where_the_processor_has_it() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    assert has_bfloat16(torch.device("cpu")) == ("avx512_bf16" in flags)
    assert not has_bfloat16(torch.device("meta"))


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="no bfloat16 here")
@pytest.mark.parametrize("name", ["improved_seresnet_small", "timm:resnet18"])
def test_from_the_least_size_on_bfloat16_gives_what_float32_gives(name: str) -> None:
    model = create_model(name, 2, seed=0).to(memory_format=torch.channels_last)
    shape = (8, 3, MIN_BFLOAT16_SIZE, MIN_BFLOAT16_SIZE)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=torch.channels_last)
    for _ in range(10):  # memory that was used before holds other numbers
        gradients = []
        for use_bfloat16 in (True, False):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=use_bfloat16):
                loss = model(images).float().square().mean()
            loss.backward()
            parts = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
            gradients.append(torch.cat(parts))
        assert torch.cosine_similarity(*gradients, dim=0) > 0.8  # 0.88 at 96 px


def test_small_images_are_computed_in_float32() -> None:
    cpu = torch.device("cpu")
    assert not uses_bfloat16("auto", cpu, input_size=32)
    assert uses_bfloat16("auto", cpu, input_size=224) == has_bfloat16(cpu)
    assert uses_bfloat16("bfloat16", cpu, input_size=224)
    assert not uses_bfloat16("float32", cpu, input_size=224)
    with pytest.raises(ConfigError, match="33 px or more"):
        uses_bfloat16("bfloat16", cpu, input_size=32)


def test_depthwise_convolutions_that_are_trained_are_computed_in_float32() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 16, 9, 9)
    depthwise, dense = nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 3)
    with autocast(torch.device("cpu"), use_bfloat16=True):
        one, other = depthwise(images), dense(images)
        with torch.no_grad():
            untrained = depthwise(images)
    assert one.dtype == other.dtype == untrained.dtype == torch.bfloat16
    assert one.equal(depthwise(images).to(torch.bfloat16))
    assert not other.equal(dense(images).to(torch.bfloat16))
    assert not untrained.equal(one)
    one.float().sum().backward()
    assert depthwise.weight.grad is not None


def test_convolutions_of_other_kinds_are_left_alone() -> None:
    images, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 1, 3, 3, requires_grad=True)
    with autocast(torch.device("cpu"), use_bfloat16=True):
        named = torch.conv2d(images, weight=weight, groups=4)
        computed = torch.conv2d(images.bfloat16(), weight.bfloat16(), groups=4)
    assert named.equal(computed)
