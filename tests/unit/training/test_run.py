import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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
from glomerulab.images import RgbImage
from glomerulab.models import preprocessing
from glomerulab.models.checkpoint import load_checkpoint, read_checkpoint, read_tensors
from glomerulab.predictions import read_predictions
from glomerulab.runtime import sealing
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.run import train


def _weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights after the last epoch."""
    last = run / "last"
    return read_checkpoint(last if last.is_dir() else run)[0]


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
        "config.toml",
        "manifest.csv",
        "taxonomy.toml",
        "environment.json",
        "history.csv",
        "start.json",
        "checkpoint",
        "last",
        "predictions.csv",
        "seal.json",
    }
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    _, card = load_checkpoint(run)
    assert card.epoch == history["validation_loss"].idxmin() + 1
    assert load_checkpoint(run / "last")[1].epoch == 8
    assert (card.mpp, card.input_size) == (0.5, 32)
    predictions = read_predictions(run / "predictions.csv", card.taxonomy)
    assert predictions["split"].value_counts().to_dict() == {
        "train": 20,
        "validation": 8,
        "test": 8,
    }
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
        _weights(first)["classifier.weight"], _weights(other)["classifier.weight"]
    )


def test_the_number_of_workers_does_not_change_the_weights(
    config: TrainConfig, tmp_path: Path
) -> None:
    alone = train(config)
    changes = {"out": tmp_path / "shared", "n_workers": 2}
    shared = train(config.model_copy(update=changes))
    _assert_same(alone, shared)
    assert (alone / "predictions.csv").read_bytes() == (shared / "predictions.csv").read_bytes()


STATEFUL = {
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
    "accumulate": 2,
    "balance": "sampling",
    "clip_gradient_norm": 1.0,
    "patience": 5,
}


@pytest.mark.parametrize(
    "changes", [{}, pytest.param(STATEFUL, marks=pytest.mark.slow)], ids=["plain", "all at once"]
)
def test_a_run_killed_and_resumed_ends_as_one_that_was_never_stopped(
    config: TrainConfig, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = TrainConfig.model_validate(config.model_dump() | {"epochs": 12} | changes)
    uninterrupted = train(config.model_copy(update={"out": tmp_path / "whole"}))
    process = _start(config, tmp_path)
    history = config.out / "history.csv"
    while process.poll() is None and not (
        history.is_file() and len(history.read_text().splitlines()) > 3
    ):
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 3 <= len(pd.read_csv(history)) < 12
    train(config, resume=True)
    _assert_same_run(uninterrupted, config.out)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_the_same(config: TrainConfig, tmp_path: Path) -> None:
    config = TrainConfig.model_validate(config.model_dump() | {"epochs": 6} | STATEFUL)
    uninterrupted = train(config.model_copy(update={"out": tmp_path / "whole"}))
    moments = random.Random(7)
    for _ in range(8):
        process = _start(config, tmp_path, "--resume")
        while process.poll() is None and not config.out.is_dir():
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 4.0))
        process.kill()
        process.wait()
    train(config, resume=True)
    _assert_same_run(uninterrupted, config.out)
    assert not list(config.out.rglob("*.partial*"))


def _start(config: TrainConfig, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    write_config(config, folder / "config.toml")
    command = [sys.executable, "-m", "glomerulab", "train", str(folder / "config.toml"), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _assert_same_run(first: Path, second: Path) -> None:
    _assert_same(first, second)
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    for name in ("checkpoint", "last"):
        one, two = (read_tensors(run / name, "checkpoint") for run in (first, second))
        assert one[1] == two[1]  # the weights' hash among it


def test_training_stops_when_validation_has_not_improved(config: TrainConfig) -> None:
    hopeless = config.optimizer.model_copy(update={"learning_rate": 1e-12})
    run = train(config.model_copy(update={"optimizer": hopeless, "patience": 2, "epochs": 50}))
    losses = pd.read_csv(run / "history.csv")["validation_loss"]
    assert len(losses) < 50
    assert losses.idxmin() == len(losses) - 3
    assert load_checkpoint(run)[1].epoch == len(losses) - 2
    assert load_checkpoint(run / "last")[1].epoch == len(losses)
    assert train(read_config(run / "config.toml"), resume=True) == run


def test_patience_without_validation_is_refused(config: TrainConfig) -> None:
    _with_split(config, ["train"] * 30 + ["test"] * 6)
    with pytest.raises(TrainingError, match="no image in the validation part"):
        train(config.model_copy(update={"keep": "last", "patience": 3}))


def test_with_the_last_weights_kept_the_best_are_kept_beside_them(config: TrainConfig) -> None:
    run = train(config.model_copy(update={"keep": "last"}))
    losses = pd.read_csv(run / "history.csv")["validation_loss"]
    assert load_checkpoint(run)[1].epoch == 3
    assert load_checkpoint(run / "best")[1].epoch == losses.idxmin() + 1


def test_micro_batches_give_the_step_of_the_batch_without_batch_norm(
    config: TrainConfig, tmp_path: Path
) -> None:
    table = config.model_dump() | {"epochs": 2, "label_smoothing": 0.1, "balance": "weights"}
    table |= {"model": {"name": "timm:test_convnext", "input_size": 32}, "augmentation": None}
    table |= {"precision": "float32"}
    table |= {"optimizer": {"name": "sgd", "learning_rate": 0.01}}  # Adam enlarges rounding
    losses = []
    for parts in (1, 3):
        changes = {"accumulate": parts, "out": tmp_path / f"in {parts}"}
        run = train(TrainConfig.model_validate(table | changes))
        losses.append(pd.read_csv(run / "history.csv")[["train_loss", "validation_loss"]])
    assert np.allclose(*losses, rtol=1e-4)


def test_the_history_goes_to_tensorboard_on_request(config: TrainConfig) -> None:
    run = train(config.model_copy(update={"tensorboard": True, "epochs": 1}))
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_settings(
    config: TrainConfig,
) -> None:
    short = config.model_copy(update={"epochs": 1})
    train(short)
    with pytest.raises(OutputError, match="resume it"):
        train(short)
    assert train(short, resume=True) == config.out
    with pytest.raises(ConfigError, match="epochs 1 then, 3 now"):
        train(config, resume=True)


def test_an_unsplit_manifest_and_an_empty_validation_part_are_refused(config: TrainConfig) -> None:
    _with_split(config, ["train"] * 30 + ["test"] * 6)
    with pytest.raises(TrainingError, match=r"no image in the validation part.*keep = 'last'"):
        train(config)
    _with_split(config, [None] * 36)
    with pytest.raises(TrainingError, match=r"train part.*`glomerulab split`"):
        train(config)


def test_without_validation_the_last_weights_are_kept(config: TrainConfig) -> None:
    _with_split(config, ["train"] * 30 + ["test"] * 6)
    run = train(config.model_copy(update={"keep": "last", "epochs": 1}))
    assert load_checkpoint(run)[1].epoch == 1


def test_a_class_absent_from_training_is_named(config: TrainConfig) -> None:
    _with_split(config, ["test", "train"] * 15 + ["validation"] * 6)
    with pytest.raises(TrainingError, match="no training image shows: blue"):
        train(config)


def test_a_nan_loss_ends_the_run_and_keeps_the_last_checkpoint(config: TrainConfig) -> None:
    wild = config.optimizer.model_copy(update={"learning_rate": 1e30, "name": "sgd"})
    with pytest.raises(TrainingError, match=r"_loss is (nan|inf) in epoch 1"):
        train(config.model_copy(update={"optimizer": wild}))
    assert not (config.out / "checkpoint").exists()


def test_a_diverged_run_is_resumed_with_a_lower_learning_rate(config: TrainConfig) -> None:
    calm = config.optimizer
    wild = calm.model_copy(update={"learning_rate": 1e30, "name": "sgd"})
    # Warm-up keeps the first epoch calm: 1e30 / 1e33.
    table = {"schedule": {"kind": "multistep", "milestones": (1,), "gamma": 1e-33}}
    table = config.model_dump() | table | {"optimizer": wild.model_dump()}
    wild_config = TrainConfig.model_validate(table)
    with pytest.raises(TrainingError, match=r"--resume with a lower optimizer\.learning_rate"):
        train(wild_config)
    lower = wild.model_copy(update={"learning_rate": 1e-3})
    run = train(wild_config.model_copy(update={"optimizer": lower}), resume=True)
    assert len(pd.read_csv(run / "history.csv")) == 3
    (warning,) = json.loads((run / "environment.json").read_text())["warnings"]
    assert warning == "resumed with optimizer.learning_rate = 0.001 instead of 1e+30"
    assert read_config(run / "config.toml").optimizer.learning_rate == 1e-3


def test_a_corrupt_image_is_named(config: TrainConfig) -> None:
    read_manifest(config.manifest).image_paths()[3].write_bytes(b"not an image")
    with pytest.raises(ImageFileError, match=r"3\.png: .*not an image"):
        train(config)


def test_an_image_that_breaks_in_the_middle_of_epoch_3_costs_that_epoch_only(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = train(config.model_copy(update={"out": tmp_path / "whole"}))
    monkeypatch.setattr("glomerulab.training.dataset.MAX_CACHE_BYTES", 0)
    path = read_manifest(config.manifest).image_paths()[3]
    good = path.read_bytes()
    reading = preprocessing.read_image
    history = config.out / "history.csv"

    def breaks_later(image_path: Path) -> RgbImage:
        if image_path == path and history.is_file() and len(pd.read_csv(history)) == 2:
            path.write_bytes(good[: len(good) // 2])
        return reading(image_path)

    monkeypatch.setattr(preprocessing, "read_image", breaks_later)
    with pytest.raises(ImageFileError, match=r"3\.png: .*cannot be read"):
        train(config)
    assert len(pd.read_csv(config.out / "history.csv")) == 2
    path.write_bytes(good)
    monkeypatch.setattr(preprocessing, "read_image", reading)
    train(config, resume=True)
    _assert_same_run(uninterrupted, config.out)


def test_an_unknown_model_is_a_config_error(config: TrainConfig) -> None:
    model = config.model.model_copy(update={"name": "resnet51"})
    with pytest.raises(ConfigError, match="unknown model 'resnet51'"):
        train(config.model_copy(update={"model": model}))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does")
def test_an_out_of_memory_error_names_the_settings_to_change(
    config: TrainConfig, tmp_path: Path
) -> None:
    model = config.model.model_copy(update={"input_size": 1024})
    config = config.model_copy(update={"model": model, "epochs": 1, "precision": "float32"})
    # Address space for what is loaded, and far less than eight such images take.
    code = (
        "import re, resource, sys; from pathlib import Path; from glomerulab.cli.main import main;"
        "import glomerulab.training.run;"
        "used = int(re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "limit = 1024 * used + 700_000_000; resource.setrlimit(resource.RLIMIT_AS, (limit, limit));"
        "sys.argv[1:] = ['train', sys.argv[1]]; main()"
    )
    write_config(config, tmp_path / "config.toml")
    command = [sys.executable, "-c", code, str(tmp_path / "config.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "out of memory with batch_size 8 in 1 part(s): raise accumulate" in done.stderr
    assert "Traceback" not in done.stderr


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
    assert warning == "1 patient has images in several parts, such as 'p9' in train, validation"


def test_a_stain_target_from_the_test_part_is_reported(config: TrainConfig) -> None:
    manifest = read_manifest(config.manifest)
    table = manifest.table.assign(stain_target_leak="test")
    write_manifest(manifest.with_table(table), config.manifest)
    lines: list[str] = []
    train(config.model_copy(update={"epochs": 1}), echo=lines.append)
    assert any("stain target" in line and "test part" in line for line in lines)


def test_a_test_image_that_breaks_after_the_last_epoch_costs_no_epoch(config: TrainConfig) -> None:
    path = read_manifest(config.manifest).image_paths()[-1]
    good = path.read_bytes()
    path.write_bytes(b"not an image")
    with pytest.raises(ImageFileError, match=r"--resume"):
        train(config)
    history = (config.out / "history.csv").stat().st_mtime_ns
    path.write_bytes(good)
    run = train(config, resume=True)
    assert (run / "history.csv").stat().st_mtime_ns == history
    assert read_run(run).is_sealed
    assert not (run / "state").exists()


def test_a_run_that_was_killed_while_it_was_sealed_is_refused_until_it_is_resumed(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(folder: Path, _: dict[str, str]) -> None:
        raise KeyboardInterrupt(folder)

    with monkeypatch.context() as killed:
        killed.setattr(sealing, "_write_seal", kill)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    with pytest.raises(RunError, match="resume it"):
        load_checkpoint(config.out)
    run = train(config, resume=True)
    assert load_checkpoint(run)[1].epoch
    assert read_run(run).is_sealed


def test_a_training_is_not_written_into_the_folder_of_an_export(config: TrainConfig) -> None:
    config.out.mkdir()
    (config.out / "card.json").write_text("{}")
    sealing.write_seal(config.out)
    with pytest.raises(OutputError, match="another model"):
        train(config)


def test_images_that_do_not_exist_are_found_before_the_first_epoch(config: TrainConfig) -> None:
    for path in read_manifest(config.manifest).image_paths()[-2:]:
        path.unlink()
    with pytest.raises(ImageFileError, match=r"2 images.*34\.png"):
        train(config)
    assert not config.out.exists()


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        ({"name": "inception_v3", "input_size": 64}, {}, "input_size"),
        ({"input_size": 32}, {"batch_size": 1}, "batch_size"),
        ({"input_size": 32}, {"batch_size": 4, "accumulate": 4}, "accumulate"),
        ({"name": "mobilenetv3_small"}, {"batch_size": 1}, "batch_size"),
    ],
    ids=["strides", "batch of one", "parts of one", "pooled batch norm"],
)
def test_what_a_network_cannot_take_is_refused_before_the_first_epoch(
    config: TrainConfig, model: dict[str, object], changes: dict[str, object], reason: str
) -> None:
    table = config.model_dump() | changes
    table["model"] = table["model"] | model
    with pytest.raises(ConfigError, match=reason):
        train(TrainConfig.model_validate(table))
    assert not config.out.exists()


def test_batches_of_one_train_a_network_without_batch_norm(config: TrainConfig) -> None:
    table = config.model_dump() | {"batch_size": 1, "epochs": 1}
    table |= {"model": {"name": "timm:test_convnext", "input_size": 32}}
    assert read_run(train(TrainConfig.model_validate(table))).is_sealed


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_device_that_is_absent_is_refused_before_the_first_epoch(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="device"):
        train(config.model_copy(update={"device": "cuda"}))
    assert not config.out.exists()


def test_predictions_changed_after_training_are_noticed(config: TrainConfig) -> None:
    run = train(config.model_copy(update={"epochs": 1}))
    table = pd.read_csv(run / "predictions.csv")
    table["probability_pink"], table["probability_blue"] = (
        table["probability_blue"],
        table["probability_pink"],
    )
    table.to_csv(run / "predictions.csv", index=False)
    with pytest.raises(RunError, match=r"predictions\.csv changed"):
        read_run(run)
