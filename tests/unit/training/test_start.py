import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from glomerulab.errors import CheckpointError, ConfigError
from glomerulab.models.checkpoint import load_checkpoint, read_checkpoint
from glomerulab.models.registry import create_model
from glomerulab.training.config import StartConfig, TrainConfig
from glomerulab.training.run import train
from glomerulab.training.start import Start, read_start, write_start


def _begun(config: TrainConfig, weights: Path | str, name: str, **start: object) -> TrainConfig:
    changes = {
        "out": config.out.with_name(name),
        "epochs": 1,
        "start": StartConfig(weights=str(weights), **start),
    }
    return config.model_copy(update=changes)


def _checkpoint(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run)[0]


@pytest.fixture
def first(config: TrainConfig) -> Path:
    return train(config.model_copy(update={"epochs": 1}))


def test_a_run_starts_another_with_a_new_head(config: TrainConfig, first: Path) -> None:
    lines: list[str] = []
    frozen = _begun(config, first, "second", frozen_share=1.0)
    second = train(frozen, echo=lines.append)
    theirs, ours = _checkpoint(first), _checkpoint(second)
    kept = {key for key in ours if torch.equal(ours[key], theirs[key])}
    assert ours.keys() - kept == {"classifier.weight", "classifier.bias"}
    assert lines[0] == f"start: {first}, {len(kept)} tensors loaded"
    assert set(read_start(second).pretrained) == kept
    model, _ = load_checkpoint(second)
    fresh = create_model("improved_seresnet_small", 2, seed=config.seed).classifier.weight
    assert (model.classifier.weight - fresh).abs().max() < 0.1


def test_weights_that_are_not_frozen_change_and_their_norms_are_measured(
    config: TrainConfig, first: Path
) -> None:
    second = train(_begun(config, first, "second", frozen_share=0.1))
    theirs, ours = _checkpoint(first), _checkpoint(second)
    moved = {key for key in ours if not torch.equal(ours[key], theirs[key])}
    assert "stem.0.weight" not in moved
    assert "stages.0.0.norm1.running_mean" not in moved
    assert {"stages.3.0.conv4.weight", "norm.running_mean", "norm.weight"} <= moved


def test_a_resumed_run_freezes_what_the_first_part_froze(config: TrainConfig, first: Path) -> None:
    start = {"weights": str(first), "frozen_share": 0.3}
    changed = {"epochs": 2, "start": StartConfig(**start)}
    uninterrupted = train(config.model_copy(update=changed | {"out": first.with_name("whole")}))
    resumed = config.model_copy(update=changed | {"out": first.with_name("resumed")})

    def stop(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt):  # killed before the first epoch: the start is made again
        train(resumed, echo=stop)
    train(resumed, resume=True)
    ours, theirs = _checkpoint(resumed.out), _checkpoint(uninterrupted)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_file_of_another_network_is_refused_before_anything_is_written(
    config: TrainConfig, tmp_path: Path
) -> None:
    save_file({"conv9.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    begun = _begun(config, tmp_path / "w.safetensors", "second")
    with pytest.raises(CheckpointError, match=r"w\.safetensors.*conv9\.weight.*stem\.0\.weight"):
        train(begun)
    assert not begun.out.exists()
    with pytest.raises(CheckpointError, match="holds no trained model"):
        train(_begun(config, tmp_path, "second"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"options": {"activation_inside_pair": False}},
            "activation_inside_pair is not set there and False here; tensors that differ: stages",
        ),
        (
            {"name": "improved_seresnet50"},
            "it has improved_seresnet_small, the new run improved_seresnet50",
        ),
    ],
)
def test_a_run_of_another_network_is_refused_and_the_way_out_named(
    config: TrainConfig, first: Path, changes: dict[str, object], reason: str
) -> None:
    model = config.model.model_copy(update=changes)
    begun = _begun(config, first, "second").model_copy(update={"model": model})
    with pytest.raises(ConfigError, match=reason) as caught:
        train(begun)
    assert not begun.out.exists()
    assert "start.partial = true" in str(caught.value)


@pytest.mark.parametrize("from_file", [True, False])
def test_the_matching_tensors_of_another_network_are_loaded_only_when_asked(
    config: TrainConfig, first: Path, from_file: bool
) -> None:
    model = config.model.model_copy(update={"options": {"activation_inside_pair": False}})
    (file,) = (first / "checkpoint").glob("*.safetensors")
    start = file if from_file else first
    begun = _begun(config, start, "second").model_copy(update={"model": model})
    with pytest.raises((CheckpointError, ConfigError), match=r"start\.partial"):
        train(begun)
    assert not begun.out.exists()
    lines: list[str] = []
    partial = begun.model_copy(update={"start": StartConfig(weights=str(start), partial=True)})
    train(partial, echo=lines.append)
    assert "in the file only, not used" in lines[1]


VIT = "timm:test_vit"


@pytest.mark.parametrize(
    "extra",
    [
        {f"blocks.{block}.ls1.gamma": torch.ones(64) for block in range(6)},
        {"reg_token": torch.ones(1, 4, 64)},
        {"blocks.0.attn.q_norm.weight": torch.ones(64)},
        {"cls_token": torch.ones(1, 1, 32)},
    ],
    ids=["LayerScale", "registers", "query norm", "another width"],
)
def test_learned_tensors_without_a_place_stop_the_start(
    config: TrainConfig, tmp_path: Path, extra: dict[str, torch.Tensor]
) -> None:
    theirs = create_model(VIT, 5).state_dict()
    save_file(theirs | extra, tmp_path / "w.safetensors")
    model = config.model.model_copy(update={"name": VIT, "input_size": 160})
    begun = _begun(config, tmp_path / "w.safetensors", "second").model_copy(update={"model": model})
    with pytest.raises(CheckpointError, match=next(iter(extra))):
        train(begun)
    assert not begun.out.exists()


def test_parts_that_only_pretraining_needs_do_not_stop_the_start(
    config: TrainConfig, tmp_path: Path
) -> None:
    theirs = {f"teacher.backbone.{k}": v for k, v in create_model(VIT, 5).state_dict().items()}
    theirs["teacher.backbone.mask_token"] = torch.ones(1, 1, 64)
    theirs["teacher.dino_head.mlp.0.weight"] = torch.ones(8, 64)
    theirs["teacher.backbone.decoder_blocks.0.weight"] = torch.ones(8, 8)
    save_file(theirs, tmp_path / "w.safetensors")
    model = config.model.model_copy(update={"name": VIT, "input_size": 160})
    begun = _begun(config, tmp_path / "w.safetensors", "second").model_copy(update={"model": model})
    start = read_start(train(begun))
    assert len(start.pretrained) == len(create_model(VIT, 5).state_dict()) - 2
    assert any("'teacher.backbone.'" in note for note in start.notes)
    assert any("5 classes" in note and "2 labels" in note for note in start.notes)


def test_weights_of_another_network_are_refused_with_counts(
    config: TrainConfig, tmp_path: Path
) -> None:
    theirs = create_model("timm:resnet50", 5).state_dict()
    save_file(theirs, tmp_path / "w.safetensors")
    model = config.model.model_copy(update={"name": "timm:resnet18"})
    begun = _begun(config, tmp_path / "w.safetensors", "second").model_copy(update={"model": model})
    with pytest.raises(
        CheckpointError, match=rf"of {len(theirs)} tensors.* file has (?!.*batches).*conv1"
    ):
        train(begun)


def test_imagenet_weights_are_refused_for_images_normalised_otherwise(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOMERULAB_WEIGHTS", str(tmp_path / "none"))
    changes = {"name": "inception_v3", "input_size": 299, "mean": (0.4, 0.4, 0.4)}
    model = config.model.model_copy(update=changes)
    begun = _begun(config, "imagenet", "second").model_copy(update={"model": model})
    with pytest.raises(ConfigError, match=r"normalised with mean \[0\.5, 0\.5, 0\.5\]"):
        train(begun)


def test_other_normalisation_and_nothing_to_freeze_are_refused(
    config: TrainConfig, first: Path
) -> None:
    model = config.model.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    with pytest.raises(ConfigError, match=r"model\.mean and model\.std"):
        train(_begun(config, first, "second").model_copy(update={"model": model}))
    alone = {"out": first.with_name("third"), "start": StartConfig(frozen_share=0.5)}
    with pytest.raises(ConfigError, match="nothing is pretrained"):
        train(config.model_copy(update=alone))


def test_an_improved_network_starts_from_a_resnet34_by_pairs(
    config: TrainConfig, tmp_path: Path
) -> None:
    weights = create_model("timm:resnet34", 5).state_dict()
    save_file(weights, tmp_path / "resnet34.safetensors")
    model = config.model.model_copy(update={"name": "improved_seresnet50"})
    begun = _begun(config, tmp_path / "resnet34.safetensors", "second", frozen_share=1.0)
    lines: list[str] = []
    run = train(begun.model_copy(update={"model": model}), echo=lines.append)
    start = read_start(run)
    assert len(start.energies) == 2 * (3 + 4 + 6 + 3)
    assert lines[1] == f"  layer1.0.conv1: {start.energies[0].energy:.1%} of the kernel kept"
    assert 0.5 < min(pair.energy for pair in start.energies) < 1.0
    ours = _checkpoint(run)["stem.0.weight"]
    bn = {key: weights[f"bn1.{key}"] for key in ("weight", "running_var")}
    scale = bn["weight"] / (bn["running_var"] + 1e-5).sqrt()
    assert torch.equal(ours, weights["conv1.weight"] * scale[:, None, None, None])


@pytest.mark.real
def test_a_real_resnet50_starts_from_the_tensors_that_are_there(
    config: TrainConfig, real_data: Path
) -> None:
    path = real_data / "weights" / "resnet50_imagenet1k_v1_partial.pth"
    model = config.model.model_copy(update={"name": "resnet50"})
    begun = _begun(config, path, "second").model_copy(update={"model": model})
    lines: list[str] = []
    train(begun, echo=lines.append)
    assert lines[1].startswith("  28 not in the file, random: layer3.0.conv2.weight, ")
    assert lines[2].startswith("  112 batch norm values that follow missing layers, not loaded: ")


def test_a_damaged_start_is_refused_and_none_is_random(tmp_path: Path) -> None:
    assert read_start(tmp_path) == Start("random")
    write_start(Start("x.pth", ("a.weight",)), tmp_path)
    assert read_start(tmp_path).pretrained == ("a.weight",)
    (tmp_path / "start.json").write_text(json.dumps({"source": "x"}))
    with pytest.raises(CheckpointError, match=r"start\.json: .*damaged"):
        read_start(tmp_path)


@pytest.mark.parametrize(("network", "is_there"), [("lite2", True), ("timm:resnet18", False)])
def test_auto_takes_the_imagenet_weights_of_this_machine_or_says_that_there_are_none(
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    is_there: bool,
) -> None:
    monkeypatch.setenv("GLOMERULAB_WEIGHTS", str(tmp_path / "none"))
    model = config.model.model_copy(update={"name": network, "options": {}})
    begun = _begun(config, "auto", "second").model_copy(update={"model": model, "kind": "probe"})
    start = read_start(train(begun))
    assert bool(start.pretrained) == is_there
    assert any("no ImageNet weights" in line for line in start.lines()) != is_there
