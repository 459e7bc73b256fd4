from pathlib import Path

import pytest

from glomerulab.errors import CheckpointError
from glomerulab.models.transfer.pretrained import imagenet_scale, imagenet_weights, weights_folder


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
def test_offline_it_says_what_to_fetch_and_where_to_put_it(
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


def test_networks_without_imagenet_weights_say_so() -> None:
    with pytest.raises(CheckpointError, match="improved_seresnet_small: timm has no ImageNet"):
        imagenet_weights("improved_seresnet_small")


def test_inception_was_trained_on_another_scale_than_the_others() -> None:
    assert imagenet_scale("inception_v3") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert imagenet_scale("improved_seresnet50")[0] == (0.485, 0.456, 0.406)


def test_without_the_variable_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOMERULAB_WEIGHTS")
    assert weights_folder() == Path.home() / ".cache" / "glomerulab" / "weights"
