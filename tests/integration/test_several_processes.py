import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.images import write_image
from glomerulab.models.checkpoint import load_checkpoint, read_checkpoint
from glomerulab.models.layers import freeze_first
from glomerulab.models.registry import create_model
from glomerulab.predictions import read_predictions
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.run import train
from glomerulab.training.start import read_start

TAXONOMY = Taxonomy("colours", (Label(id="pink", name="Pink"), Label(id="blue", name="Blue")))
LOSSES = ["train_loss", "validation_loss"]
N_OF_PART = {"train": 21, "validation": 9, "test": 7}  # odd: processes get unequal shares


@pytest.fixture
def config(tmp_path: Path, rng: np.random.Generator) -> TrainConfig:
    """Two classes that differ in colour, batch norm, dropout, two parts of a batch, clipping."""
    rows = []
    for split in (name for name, n in N_OF_PART.items() for _ in range(n)):
        number = len(rows)
        pink = number % 2
        colour = (230, 120, 170) if pink else (90, 110, 220)
        image = np.clip(rng.normal(colour, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
        write_image(image, tmp_path / f"{number}.png")
        rows.append(
            {"image_id": f"i{number}", "image_path": f"{number}.png", "split": split}
            | {"patient_id": f"p{number}", "pink": pink, "blue": 1 - pink}
        )
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=TAXONOMY)
    write_manifest(manifest, tmp_path / "manifest.csv")
    config = TrainConfig.model_validate(
        {
            "manifest": tmp_path / "manifest.csv",
            "out": tmp_path / "run",
            "epochs": 3,
            "batch_size": 8,
            "accumulate": 2,
            "clip_gradient_norm": 1.0,
            "precision": "float32",
            "label_smoothing": 0.05,
            "balance": "weights",
            "model": {"name": "improved_seresnet_small", "input_size": 32, "dropout": 0.3},
            # Not Adam, which turns a rounding error of a gradient near 0 into a step's full size.
            "optimizer": {"name": "sgd", "learning_rate": 1e-4},
        }
    )
    write_config(config, tmp_path / "config.toml")
    return config


def _start(config: TrainConfig, *options: str | Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "glomerulab",
        "train",
        config.manifest.parent / "config.toml",
        *options,
    ]
    return subprocess.Popen(
        [str(argument) for argument in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.slow
def test_two_processes_train_as_one_does(config: TrainConfig, tmp_path: Path) -> None:
    code, out, err = _end(_start(config, "--out", tmp_path / "two"))
    assert code == 0, err
    assert out.count("run folder") == 1
    one = train(config)
    histories = [pd.read_csv(run / "history.csv") for run in (one, tmp_path / "two")]
    losses = [table[LOSSES].to_numpy() for table in histories]
    assert np.allclose(losses[0], losses[1], rtol=1e-4)
    assert histories[0]["train_accuracy"].equals(histories[1]["train_accuracy"])
    began = _initial_weights(config)
    ends = [_last_weights(run) for run in (one, tmp_path / "two")]
    for name in (name for name in began if "weight" in name):
        first, second = (weights[name] - began[name] for weights in ends)
        assert (first - second).norm() <= 0.1 * first.norm() + 1e-5  # ReLUs near 0 flip
    predictions = read_predictions(tmp_path / "two" / "predictions.csv", TAXONOMY)
    assert predictions["split"].value_counts().to_dict() == N_OF_PART


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_and_both_resume(
    config: TrainConfig, tmp_path: Path
) -> None:
    uninterrupted = _start(config, "--out", tmp_path / "whole", "--set", "epochs=6")
    assert _end(uninterrupted)[0] == 0
    _kill_in_the_middle(_start(config, "--set", "epochs=6"), config.out, n_epochs=6)
    code, _, err = _end(_start(config, "--set", "epochs=6", "--resume"))
    assert code == 0, err
    _assert_same_weights(config.out, tmp_path / "whole")
    assert read_config(config.out / "config.toml").epochs == 6


@pytest.mark.slow
def test_an_error_in_two_processes_is_printed_in_one_line(config: TrainConfig) -> None:
    (config.manifest.parent / "3.png").write_bytes(b"not an image")
    code, _, err = _end(_start(config))
    assert code != 0
    assert "3.png: the file is not an image in any known format" in err


@pytest.mark.slow
def test_two_processes_keep_frozen_layers_and_resume_after_a_kill(
    config: TrainConfig, tmp_path: Path
) -> None:
    base = train(config.model_copy(update={"out": tmp_path / "base", "seed": 9, "epochs": 1}))
    start = {"weights": str(base), "frozen_share": 0.75}
    config = TrainConfig.model_validate(config.model_dump() | {"start": start, "epochs": 4})
    write_config(config, tmp_path / "config.toml")
    one, two, killed = train(config), tmp_path / "two", tmp_path / "killed"
    code, _, err = _end(_start(config, "--out", two))
    assert code == 0, err
    losses = [pd.read_csv(run / "history.csv")[LOSSES].to_numpy() for run in (one, two)]
    assert np.allclose(losses[0], losses[1], rtol=1e-4)
    frozen = _frozen_entries(one, input_size=32)
    before = read_checkpoint(base)[0]
    for run in (one, two):
        after = _last_weights(run)
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert frozen.isdisjoint(moved)
        assert {key for key in before if key.endswith("weight")} <= frozen | moved
    _kill_in_the_middle(_start(config, "--out", killed), killed, n_epochs=4)
    code, _, err = _end(_start(config, "--out", killed, "--resume"))
    assert code == 0, err
    _assert_same_weights(killed, two)


def _initial_weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    wanted = config.model
    return create_model(
        wanted.name, len(TAXONOMY.label_ids), seed=config.seed, dropout=wanted.dropout,
        options=wanted.options,
    ).state_dict()  # fmt: skip


def _frozen_entries(run: Path, *, input_size: int) -> set[str]:
    """Entries of the weights that a run was to leave as they came, batch norms' averages too."""
    start, (model, _) = read_start(run), load_checkpoint(run / "checkpoint")
    layers = freeze_first(model, start.pretrained, share=0.75, input_size=input_size)
    assert any(isinstance(model.get_submodule(layer), nn.BatchNorm2d) for layer in layers)
    return {key for key in model.state_dict() if key.rpartition(".")[0] in layers}


def _kill_in_the_middle(process: subprocess.Popen[str], run: Path, *, n_epochs: int) -> None:
    """Kill one of two processes as soon as an epoch is done; the other ends with it."""
    history = run / "history.csv"
    while process.poll() is None and not history.is_file():
        time.sleep(0.005)
    assert process.poll() is None
    children = _children(process.pid)
    assert len(children) == 2
    os.kill(children[1], signal.SIGKILL)
    code, _, err = _end(process)
    assert code != 0
    assert "Signal 9 (SIGKILL)" in err
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert 1 <= len(pd.read_csv(history)) < n_epochs


def _last_weights(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "last" if (run / "last").is_dir() else run)[0]


def _assert_same_weights(run: Path, other: Path) -> None:
    first, second = _last_weights(run), _last_weights(other)
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def _children(parent: int) -> list[int]:
    """Processes started by a process, oldest first."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    found = [int(child) for child in text.split()]
    command = (Path(f"/proc/{child}/cmdline").read_text() for child in found)
    return [child for child, line in zip(found, command, strict=True) if "glomerulab" in line]
