"""ImageNet weights from installed packages: tested by what they recognise, not by their shapes."""

import pytest
import torch
from skimage import data

from glomerulab.errors import CheckpointError
from glomerulab.images import resized
from glomerulab.models.registry import create_model, find_model
from glomerulab.models.transfer import weights as module
from glomerulab.models.transfer.weight_files import read_weights
from glomerulab.models.transfer.weights import (
    imagenet_origin,
    imagenet_scale,
    imagenet_weights,
    load_matching,
)

PICTURES = {"cat": 285, "coffee": 967}
"""Pictures of scikit-image, and their classes: Egyptian cat, espresso."""


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_the_packaged_weights_recognise_a_cat_and_a_cup_of_coffee(name: str) -> None:
    size = find_model(name).input_size
    model = create_model(name, 1000).eval()
    path = imagenet_weights(name)
    loaded = load_matching(model, read_weights(path, model).tensors, input_size=size)
    assert (loaded.missing, loaded.misshapen, loaded.unused) == ((), (), ())
    mean, std = (torch.tensor(value)[:, None, None] for value in imagenet_scale(name))
    pictures = [resized(getattr(data, picture)(), size, size) for picture in PICTURES]
    pixels = torch.stack([torch.from_numpy(one).permute(2, 0, 1) / 255.0 for one in pictures])
    with torch.inference_mode():
        found = model((pixels - mean) / std).argmax(dim=1).tolist()
    assert found == list(PICTURES.values())
    assert imagenet_origin(name).licence == "apache-2.0"


def test_weights_of_a_package_fit_no_other_size_of_the_network() -> None:
    with pytest.raises(CheckpointError, match=r"none of the .* tensors"):
        read_weights(imagenet_weights("lite0"), create_model("lite2", 2))


def test_without_package_and_network_the_error_names_the_three_places(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOMERULAB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError) as caught:
        imagenet_weights("lite1")
    message = str(caught.value)
    for place in (
        "pip install glomerulab[imagenet]",
        str(tmp_path / "tf_efficientnet_lite1.in1k.safetensors"),
        str(tmp_path / "cache"),
        "timm/tf_efficientnet_lite1.in1k",
    ):
        assert place in message
    (tmp_path / "tf_efficientnet_lite1.in1k.safetensors").touch()
    assert imagenet_weights("lite1").parent == tmp_path
