import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.errors import (
    ConfigError,
    ImageFileError,
    LeakageError,
    OutputError,
    RunError,
    TrainingError,
)
from glomerulab.evaluation.run_tables import read_run
from glomerulab.models.checkpoint import load_checkpoint
from glomerulab.models.sealed import read_sealed
from glomerulab.predictions import read_predictions
from glomerulab.training.config import TrainConfig, write_config
from glomerulab.training.run import train


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return read_sealed(run / "state", "state")[0]


def _assert_same(first: Path, second: Path) -> None:
    one, two = _weights(first), _weights(second)
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


def _with_split(config: TrainConfig, split: list[str | None]) -> None:
    manifest = read_manifest(config.manifest)
    table = manifest.table.assign(split=pd.array(split, dtype="string"))
    write_manifest(manifest.with_table(table), config.manifest)


def test_a_run_learns_and_its_folder_is_complete(config: TrainConfig) -> None:
    run = train(config.model_copy(update={"epochs": 8}))
    files = {path.name for path in run.iterdir()}
    assert files == {
        "config.toml", "manifest.csv", "taxonomy.toml", "environment.json", "history.csv",
        "checkpoint", "state", "predictions.csv", "seal.json",
    }  # fmt: skip
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    _, card = load_checkpoint(run)
    assert card.epoch == history["validation_loss"].idxmin() + 1
    assert (card.mpp, card.input_size) == (0.5, 32)
    predictions = read_predictions(run / "predictions.csv", card.taxonomy)
    assert predictions["split"].value_counts().to_dict() == {
        "train": 20, "validation": 8, "test": 8,
    }  # fmt: skip
    test = predictions[predictions["split"] == "test"]
    right = (test["probability_pink"] > 0.5).astype(int) == test["label_pink"]
    assert right.mean() > 0.85


def test_the_same_seed_gives_the_same_weights_to_the_bit(
    config: TrainConfig, tmp_path: Path
) -> None:
    first = train(config)
    second = train(config.model_copy(update={"out": tmp_path / "again"}))
    _assert_same(first, second)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    other = train(config.model_copy(update={"out": tmp_path / "other", "seed": 1}))
    assert not torch.equal(
        _weights(first)["model.classifier.weight"], _weights(other)["model.classifier.weight"]
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_killed_and_resumed_ends_as_one_that_was_never_stopped(
    config: TrainConfig, tmp_path: Path, optimizer: str
) -> None:
    changed = {"epochs": 12, "optimizer": config.optimizer.model_copy(update={"name": optimizer})}
    config = config.model_copy(update=changed)
    whole = train(config.model_copy(update={"out": tmp_path / "whole"}))
    write_config(config, tmp_path / "config.toml")
    command = [sys.executable, "-m", "glomerulab", "train", str(tmp_path / "config.toml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = config.out / "history.csv"
    while process.poll() is None and not (
        history.is_file() and len(history.read_text().splitlines()) > 3
    ):
        time.sleep(0.005)
    process.kill()
    process.wait()
    n_before = len(pd.read_csv(history))
    assert 3 <= n_before < 12
    train(config, resume=True)
    _assert_same(whole, config.out)
    assert (whole / "predictions.csv").read_bytes() == (config.out / "predictions.csv").read_bytes()


def test_a_standing_run_is_neither_overwritten_nor_resumed_otherwise(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    train(short)
    with pytest.raises(OutputError, match="give --resume"):
        train(short)
    assert train(short, resume=True) == config.out
    with pytest.raises(ConfigError, match="begun with epochs = 1, now it is 3"):
        train(config, resume=True)


def test_an_unsplit_manifest_and_an_empty_validation_part_are_refused(config: TrainConfig) -> None:
    _with_split(config, ["train"] * 30 + ["test"] * 6)
    with pytest.raises(TrainingError, match=r"no image in the validation part.*keep = 'last'"):
        train(config)
    _with_split(config, [None] * 36)
    with pytest.raises(TrainingError, match="no image in the train part; run `glomerulab split`"):
        train(config)


def test_without_validation_the_last_weights_are_kept(config: TrainConfig) -> None:
    _with_split(config, ["train"] * 30 + ["test"] * 6)
    run = train(config.model_copy(update={"keep": "last", "epochs": 1}))
    assert load_checkpoint(run)[1].epoch == 1


def test_a_class_absent_from_training_is_named(config: TrainConfig) -> None:
    _with_split(config, ["test", "train"] * 15 + ["validation"] * 6)
    with pytest.raises(TrainingError, match="no training image shows: blue"):
        train(config)


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_what_was(config: TrainConfig) -> None:
    wild = config.optimizer.model_copy(update={"learning_rate": 1e30, "name": "sgd"})
    with pytest.raises(TrainingError, match=r"_loss is (nan|inf) in epoch 1"):
        train(config.model_copy(update={"optimizer": wild}))
    assert not (config.out / "checkpoint").exists()


def test_a_corrupt_image_is_named(config: TrainConfig) -> None:
    read_manifest(config.manifest).image_paths()[3].write_bytes(b"not an image")
    with pytest.raises(ImageFileError, match=r"3\.png: not an image"):
        train(config)


def test_an_unknown_model_is_a_config_error(config: TrainConfig) -> None:
    model = config.model.model_copy(update={"name": "resnet51"})
    with pytest.raises(ConfigError, match="unknown model 'resnet51'"):
        train(config.model_copy(update={"model": model}))


def test_running_out_of_memory_says_what_to_lower(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A real one cannot be caused here without harm: raise what torch raises.
    def exhausted(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("glomerulab.training.run.fit", exhausted)
    with pytest.raises(TrainingError, match="out of memory with batch_size 8: lower it"):
        train(config)


def test_a_sigmoid_head_trains_with_unknown_labels(config: TrainConfig) -> None:
    manifest = read_manifest(config.manifest)
    table = manifest.table.copy()
    table.loc[[0, 3], ["pink", "blue"]] = pd.NA
    write_manifest(manifest.with_table(table), config.manifest)
    model = config.model.model_copy(update={"head": "sigmoid"})
    run = train(config.model_copy(update={"model": model, "epochs": 1}))
    _, card = load_checkpoint(run)
    predictions = read_predictions(run / "predictions.csv", card.taxonomy, head="sigmoid")
    assert predictions["label_pink"].isna().sum() == 2


def test_a_patient_in_two_parts_is_refused_unless_the_config_allows_it(
    config: TrainConfig,
) -> None:
    _with_split(config, ["train"] * 19 + ["validation"] * 9 + ["test"] * 8)
    with pytest.raises(LeakageError, match=r"'p9' in train, validation.*allow_image_level_split"):
        train(config)
    assert not config.out.exists()
    run = train(config.model_copy(update={"allow_image_level_split": True, "epochs": 1}))
    (warning,) = json.loads((run / "environment.json").read_text())["warnings"]
    assert warning == "patients in several parts: 1, such as 'p9' in train, validation"


def test_several_processes_are_refused_before_they_write_over_each_other(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="2 processes"):
        train(config)
    assert not config.out.exists()


def test_a_run_killed_before_its_seal_is_predicted_again_and_sealed(config: TrainConfig) -> None:
    short = config.model_copy(update={"epochs": 1})
    run = train(short)
    before = (run / "predictions.csv").read_bytes(), (run / "seal.json").read_bytes()
    (run / "seal.json").unlink()
    (run / "predictions.csv").write_text("half", encoding="utf-8")
    train(short, resume=True)
    assert ((run / "predictions.csv").read_bytes(), (run / "seal.json").read_bytes()) == before
    assert read_run(run).is_sealed


def test_predictions_changed_after_training_are_noticed(config: TrainConfig) -> None:
    run = train(config.model_copy(update={"epochs": 1}))
    table = pd.read_csv(run / "predictions.csv")
    table["probability_pink"], table["probability_blue"] = (
        table["probability_blue"], table["probability_pink"],
    )  # fmt: skip
    table.to_csv(run / "predictions.csv", index=False)
    with pytest.raises(RunError, match=r"predictions\.csv: changed since the run was trained"):
        read_run(run)
