from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.errors import CheckpointError, ImageFileError, ManifestError, OutputError
from glomerulab.models.checkpoint import read_checkpoint
from glomerulab.models.registry import create_model
from glomerulab.runtime.sealing import check_seal
from glomerulab.training import distill as module
from glomerulab.training.config import TrainConfig
from glomerulab.training.distill import Distillation, best_teacher, distill
from glomerulab.training.run import train
from glomerulab.training.start import read_start
from tests.support.published_models import write_uni


@pytest.fixture
def settings(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Distillation:
    weights = create_model("resnet50", 5).state_dict()
    kept = {
        key: value for key, value in weights.items() if key.startswith(("conv1", "bn1", "layer1"))
    }
    save_file(kept, tmp_path / "resnet50.safetensors")
    monkeypatch.setattr(module, "STEPS_PER_ROW", 2)
    monkeypatch.setattr(module, "N_NORM_BATCHES", 2)
    return Distillation(
        config.manifest,
        str(tmp_path / "resnet50.safetensors"),
        tmp_path / "start",
        n_steps=6,
        input_size=32,
        batch_size=4,
    )


def test_stages_learn_a_stopped_run_continues_alike_and_a_training_starts_from_it(
    settings: Distillation, config: TrainConfig
) -> None:
    history = distill(settings)
    assert [row["step"] for row in history] == [2, 4, 6]
    assert history[-1]["unexplained_1"] < history[0]["unexplained_1"]
    # The teacher has one complete stage: two stages learn its summaries, the last has no target.
    assert set(history[0]) == {"step", "unexplained_1", "unexplained_2", "unexplained_3"}
    again = replace(settings, out=settings.out.with_name("again"))

    def stop_at_4(steps: range, name: str, n_steps: int | None = None) -> list[int]:
        return [step for step in steps if step < 4]

    distill(again, track=stop_at_4)
    distill(again)
    ours, theirs = read_checkpoint(settings.out)[0], read_checkpoint(again.out)[0]
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    lines: list[str] = []
    model = config.model.model_copy(update={"name": "improved_seresnet50"})
    start = config.start.model_copy(update={"weights": str(settings.out)})
    changes = {"model": model, "start": start, "epochs": 1}
    train(config.model_copy(update=changes), echo=lines.append)
    assert len(lines) == 2
    assert "classifier.bias, classifier.weight" in lines[1]


def test_a_network_with_relu_inside_its_pairs_is_distilled_too(
    settings: Distillation, config: TrainConfig
) -> None:
    options = replace(settings, n_steps=2, activation_inside_pair=True)
    distill(options)
    assert check_seal(options.out)
    _, card = read_checkpoint(options.out)
    assert card.options == {"activation_inside_pair": True}
    model = config.model.model_copy(update={"name": "improved_seresnet50", "options": card.options})
    start = config.start.model_copy(update={"weights": str(options.out)})
    run = train(config.model_copy(update={"model": model, "start": start, "epochs": 1}))
    assert any(key.endswith("norm2.weight") for key in read_start(run).pretrained)
    with pytest.raises(OutputError, match="run with other settings"):
        distill(replace(options, activation_inside_pair=False))


def test_held_out_images_are_not_used(settings: Distillation) -> None:
    manifest = read_manifest(settings.manifest)
    training = module._training_images(manifest)
    assert set(training.table["split"]) == {"train"}
    table = manifest.table.assign(split=pd.array(["test"] * 36, dtype="string"))
    write_manifest(manifest.with_table(table), settings.manifest)
    with pytest.raises(ManifestError, match="validation and test parts"):
        distill(settings)


def test_weights_without_a_first_stage_and_other_settings_are_refused(
    settings: Distillation, tmp_path: Path
) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "stem.safetensors")
    with pytest.raises(CheckpointError, match=r"stem\.safetensors: .*stem"):
        distill(replace(settings, teacher=str(tmp_path / "stem.safetensors")))
    distill(replace(settings, n_steps=1))
    with pytest.raises(OutputError, match="run with other settings"):
        distill(settings)


def _explained(history: list[dict[str, float]]) -> list[float]:
    return [1 - history[-1][f"unexplained_{stage}"] for stage in range(1, 5)]


def test_any_network_teaches_all_stages_from_a_folder_and_a_stopped_run_continues_alike(
    settings: Distillation, config: TrainConfig
) -> None:
    folder = replace(settings, manifest=settings.manifest.parent, teacher="lite0")
    folder = replace(folder, out=settings.out.with_name("whole"))
    history = distill(folder)
    assert all(
        history[-1][f"unexplained_{stage}"] < history[0][f"unexplained_{stage}"]
        for stage in range(1, 5)
    )
    again = replace(folder, out=settings.out.with_name("again"))
    distill(again, track=lambda steps, *_: [step for step in steps if step < 4])
    distill(again)
    ours, card = read_checkpoint(folder.out)
    theirs, _ = read_checkpoint(again.out)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not any("projection" in key for key in ours)
    assert card.origin is not None
    assert card.origin.licence == "apache-2.0"
    model = config.model.model_copy(update={"name": "improved_seresnet50"})
    start = config.start.model_copy(update={"weights": str(folder.out)})
    run = train(config.model_copy(update={"model": model, "start": start, "epochs": 1}))
    assert read_checkpoint(run)[1].origin == card.origin


def test_a_transformer_teaches_too(settings: Distillation, tmp_path: Path) -> None:
    write_uni(tmp_path / "UNI")
    history = distill(replace(settings, teacher=str(tmp_path / "UNI"), n_steps=2, input_size=64))
    assert all(torch.isfinite(torch.tensor(_explained(history))))


@pytest.mark.parametrize("teacher", ["lite7", "nowhere.pth"])
def test_a_teacher_that_is_not_there_is_named(settings: Distillation, teacher: str) -> None:
    with pytest.raises(CheckpointError, match=teacher):
        distill(replace(settings, teacher=teacher))
    assert not settings.out.exists()


def test_a_folder_without_images_is_refused_and_the_best_teacher_is_the_largest(
    settings: Distillation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageFileError, match="empty"):
        distill(replace(settings, manifest=tmp_path / "empty"))
    assert best_teacher() == "lite2"
    monkeypatch.setattr(module, "has_local_weights", lambda name: name == "lite0")
    assert best_teacher() == "lite0"
