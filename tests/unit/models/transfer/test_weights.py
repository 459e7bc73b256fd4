from pathlib import Path

import pytest
import torch
from torch import nn

from glomerulab.errors import CheckpointError
from glomerulab.models.layers import head_layers
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import (
    imagenet_scale,
    imagenet_weights,
    load_matching,
    weights_folder,
)


def _net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def test_matching_tensors_are_loaded_and_the_others_reported() -> None:
    theirs = {key: torch.full_like(value, 7) for key, value in _net().state_dict().items()}
    theirs["2.weight"] = torch.zeros(9, 4, 1, 1)
    del theirs["2.bias"]
    theirs["other.weight"] = torch.zeros(1)
    net = _net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = load_matching(net, theirs, input_size=4, leave=("6",))
    norm = {f"1.{key}" for key in ("weight", "bias", "running_mean", "running_var")}
    assert set(report.loaded) == {"0.weight", "0.bias", "1.num_batches_tracked", *norm}
    assert (report.missing, report.misshapen) == (("2.bias",), ("2.weight",))
    assert set(report.unused) == {"other.weight", "6.weight", "6.bias"}
    assert {key for key in report.reset if "num" not in key} == {
        key.replace("1.", "3.") for key in norm
    }
    for key, value in net.state_dict().items():
        assert torch.equal(value, theirs[key] if key in report.loaded else before[key])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("improved_seresnet_small", ("classifier",)),
        ("resnet50", ("fc",)),
        ("mobilenetv3_small", ("classifier",)),
        ("timm:deit_tiny_distilled_patch16_224", ("head", "head_dist")),
    ],
)
def test_head_layers_are_those_that_depend_on_the_labels(name: str, head: tuple[str, ...]) -> None:
    assert head_layers(create_model(name, 3)) == head
    two, three = create_model(name, 2).state_dict(), create_model(name, 3).state_dict()
    differ = {key.rpartition(".")[0] for key in two if two[key].shape != three[key].shape}
    assert differ == set(head)


@pytest.mark.real
def test_the_genuine_partial_resnet50_loads_up_to_its_third_stage(real_data: Path) -> None:
    net = create_model("resnet50", 2)
    weights = read_weights(
        real_data / "weights" / "resnet50_imagenet1k_v1_partial.pth", net
    ).tensors
    fresh = create_model("resnet50", 2, seed=1).state_dict()
    report = load_matching(net, weights, input_size=64, leave=head_layers(net))
    assert report.missing[0] == "layer3.0.conv2.weight"
    assert "layer3.0.bn1.running_var" in report.loaded
    assert "layer3.0.bn2.weight" in report.reset
    assert report.unused == ("fc.bias",)
    convs = {key for key in report.loaded if "conv" in key or "downsample.0" in key}
    assert len(convs) == 1 + (9 + 1) + (12 + 1) + 1
    own = net.state_dict()
    assert torch.equal(own["layer2.3.conv3.weight"], weights["layer2.3.conv3.weight"])
    assert torch.equal(own["layer4.2.bn3.running_var"], fresh["layer4.2.bn3.running_var"])


@pytest.fixture(autouse=True)
def _nowhere_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOMERULAB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet50", "resnet50.a1_in1k.safetensors"),
        ("improved_seresnet50", "resnet34.a1_in1k.safetensors"),
        ("timm:resnet18", "resnet18.a1_in1k.safetensors"),
    ],
)
def test_the_offline_error_names_the_file_and_its_folder(
    tmp_path: Path, name: str, file: str
) -> None:
    tagged = file.removesuffix(".safetensors")
    with pytest.raises(CheckpointError) as caught:
        imagenet_weights(name)
    message = str(caught.value)
    assert f"https://huggingface.co/timm/{tagged}/resolve/main/model.safetensors" in message
    assert str(tmp_path / file) in message
    (tmp_path / file).write_bytes(b"fetched by hand")
    assert imagenet_weights(name) == tmp_path / file


def test_a_network_without_imagenet_weights_is_refused() -> None:
    with pytest.raises(CheckpointError, match="improved_seresnet_small: timm has no ImageNet"):
        imagenet_weights("improved_seresnet_small")


def test_inception_was_trained_on_another_scale_than_the_others() -> None:
    assert imagenet_scale("inception_v3") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert imagenet_scale("improved_seresnet50")[0] == (0.485, 0.456, 0.406)


def test_the_default_weights_folder_is_in_the_home_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("GLOMERULAB_WEIGHTS")
    assert weights_folder() == Path.home() / ".cache" / "glomerulab" / "weights"
