import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from glomerulab.errors import CheckpointError
from glomerulab.models.registry import create_model
from glomerulab.models.transfer.weight_files import read_weights

SMALL = "improved_seresnet_small"


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return create_model(SMALL, 2)


def _assert_read(path: Path, net: nn.Module, expected: Mapping[str, Tensor]) -> None:
    read = read_weights(path, net).tensors
    own = net.state_dict()
    assert own.keys() <= read.keys()
    assert all(torch.equal(read[key], expected[key]) for key in own)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    containers=st.lists(
        st.sampled_from(["state_dict", "model_state_dict", "model", "ema", "net", "my weights"]),
        max_size=3,
    ),
    prefixes=st.lists(
        st.sampled_from(["module", "model", "backbone", "encoder", "net", "_orig_mod", "x2"]),
        max_size=3,
    ),
)
def test_any_nesting_and_any_prefix_is_removed(
    tmp_path: Path, net: nn.Module, containers: list[str], prefixes: list[str]
) -> None:
    prefix = "".join(f"{name}." for name in prefixes)
    content: dict[str, object] = dict(_with_prefix(net.state_dict(), prefix))
    for container in reversed(containers):
        content = {container: content, "epoch": 3, "optimizer": {"state": {0: {"step": 1}}}}
    torch.save(content, tmp_path / "w.ckpt")
    _assert_read(tmp_path / "w.ckpt", net, net.state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "model.encoder."])
def test_safetensors_are_read_with_any_prefix(tmp_path: Path, net: nn.Module, prefix: str) -> None:
    save_file(_with_prefix(net.state_dict(), prefix), tmp_path / "w.safetensors")
    _assert_read(tmp_path / "w.safetensors", net, net.state_dict())


@pytest.mark.parametrize(
    ("used", "other"),
    [
        ({"teacher": "backbone."}, {"student": "module.backbone."}),
        ({"state_dict_ema": ""}, {"state_dict": ""}),
        ({"state_dict": "module.encoder_q."}, {"state_dict": "module.encoder_k."}),
        ({"model_ema": "module."}, {"model": ""}),
        ({"model": ""}, {"momentum_model": ""}),
    ],
)
def test_of_two_networks_in_a_file_the_one_that_authors_evaluate_is_read(
    tmp_path: Path, net: nn.Module, used: dict[str, str], other: dict[str, str]
) -> None:
    theirs = create_model(SMALL, 2, seed=1).state_dict()
    content: dict[str, dict[str, Tensor]] = {}
    for networks, tensors in ((other, theirs), (used, net.state_dict())):
        for container, prefix in networks.items():
            content.setdefault(container, {}).update(_with_prefix(tensors, prefix))
    torch.save(content, tmp_path / "w.pth")
    _assert_read(tmp_path / "w.pth", net, net.state_dict())
    assert len(read_weights(tmp_path / "w.pth", net).alternatives) == 1


def test_a_training_program_s_objects_in_the_file_do_no_harm(
    tmp_path: Path, net: nn.Module
) -> None:
    content = {
        "hyper_parameters": argparse.Namespace(lr=0.1, folder=tmp_path),
        "callbacks": {"best": tmp_path},
        "state_dict": {**_with_prefix(net.state_dict(), "model."), "loss.weight": torch.ones(2)},
    }
    torch.save(content, tmp_path / "w.ckpt")
    _assert_read(tmp_path / "w.ckpt", net, net.state_dict())
    assert read_weights(tmp_path / "w.ckpt", net).outside == ("state_dict.loss.weight",)


def test_a_whole_pickled_model_is_read_as_its_tensors(tmp_path: Path, net: nn.Module) -> None:
    torch.save({"model": nn.DataParallel(net)}, tmp_path / "w.pt")
    _assert_read(tmp_path / "w.pt", net, net.state_dict())


class _Shell:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this must not run",)


@pytest.mark.parametrize("whole", [False, True])
def test_code_in_a_file_is_never_executed(
    tmp_path: Path, net: nn.Module, whole: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"callbacks": _Shell()} | ({} if whole else {"state_dict": net.state_dict()})
    torch.save(_Shell() if whole else content, tmp_path / "w.pth")
    if whole:
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            read_weights(tmp_path / "w.pth", net)
    else:
        _assert_read(tmp_path / "w.pth", net, net.state_dict())
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 half a zip"])
def test_files_without_weights_are_refused(
    tmp_path: Path, net: nn.Module, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w\.{suffix}"):
        read_weights(path, net)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
        (b"", "empty"),
    ],
)
def test_what_a_failed_download_leaves_is_named(
    tmp_path: Path, net: nn.Module, name: str, content: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=kind):
        read_weights(tmp_path / name, net)


def test_missing_files_and_files_without_tensors_are_named(tmp_path: Path, net: nn.Module) -> None:
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name}: .*No such file"):
            read_weights(tmp_path / name, net)
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="tensors"):
        read_weights(tmp_path / "w.pth", net)


def test_names_of_another_program_are_refused_with_the_first_of_both(
    tmp_path: Path, net: nn.Module
) -> None:
    theirs = {f"block{number}/kernel": torch.ones(3) for number in range(5)}
    torch.save(theirs, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as caught:
        read_weights(tmp_path / "w.pth", net)
    assert all(name in str(caught.value) for name in ("5 ", "block0/kernel", "stem.0.weight"))


def test_weights_of_a_diverged_training_are_refused(tmp_path: Path, net: nn.Module) -> None:
    tensors = {key: value.clone() for key, value in net.state_dict().items()}
    tensors["stem.0.weight"][0] = torch.nan
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"stem\.0\.weight"):
        read_weights(tmp_path / "w.pth", net)


def test_names_of_the_authors_are_read_as_timm_s(tmp_path: Path) -> None:
    net = timm.create_model("vgg11", num_classes=2)
    theirs = {}
    for key, value in net.state_dict().items():
        if key.startswith("pre_logits.fc"):
            name = key.replace("pre_logits.fc1", "classifier.0")
            name = name.replace("pre_logits.fc2", "classifier.3")
            theirs[name] = value.flatten(1) if value.ndim == 4 else value
        else:
            theirs[key.replace("head.fc", "classifier.6")] = value
    torch.save({"state_dict": _with_prefix(theirs, "module.")}, tmp_path / "w.pth")
    _assert_read(tmp_path / "w.pth", net, net.state_dict())


def test_position_embeddings_are_resampled_to_the_input_size(tmp_path: Path) -> None:
    options = {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 2}
    theirs = timm.models.VisionTransformer(img_size=96, **options)
    net = timm.models.VisionTransformer(img_size=64, **options)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors", net).tensors
    assert read["pos_embed"].shape == net.state_dict()["pos_embed"].shape
    assert torch.equal(read["pos_embed"][:, 0], theirs.pos_embed[:, 0])
