from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows, write_manifest
from glomerulab.errors import CheckpointError
from glomerulab.images import write_image
from glomerulab.inference.calibration import has_calibration
from glomerulab.pipeline import train as step
from glomerulab.taxonomy import Label, Taxonomy
from glomerulab.training.config import TrainConfig


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Replace the training by a run folder with a history of two epochs, without calibration."""

    def fake_training(config: TrainConfig, **_: object) -> Path:
        config.out.mkdir()
        (config.out / "history.csv").write_text("epoch\n1\n2\n", encoding="utf-8")
        return config.out

    monkeypatch.setattr(step, "train", fake_training)
    monkeypatch.delenv("RANK", raising=False)
    return TrainConfig(manifest=tmp_path / "split.csv", out=tmp_path / "run", epochs=3, patience=1)


def _failing_fit(run: Path, **_: object) -> None:
    raise CheckpointError("the run has no labelled validation images", where=str(run))


def _broken_fit(run: Path, **_: object) -> None:
    raise ValueError("the features have two dimensions")


@pytest.mark.parametrize(
    ("fit", "reason"),
    [(_failing_fit, "no labelled validation images"), (_broken_fit, "the features have two")],
)
def test_a_failed_calibration_is_a_warning_with_the_command_that_repeats_it(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, fit: object, reason: str
) -> None:
    monkeypatch.setattr(step, "fit_calibration", fit)
    warnings: list[str] = []
    assert step.train_and_calibrate(config, warn=warnings.append) == config.out
    (warning,) = warnings
    assert reason in warning
    assert f"glomerulab gates {config.out}" in warning


def test_an_early_stop_is_reported_with_its_epoch(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "fit_calibration", lambda *_, **__: None)
    lines: list[str] = []
    step.train_and_calibrate(config, echo=lines.append)
    assert len(lines) == 1
    assert "epoch 2 of 3" in lines[0]


def test_a_probe_without_epochs_is_trained_and_calibrated(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        is_pink = number % 2
        pixels = np.full((40, 40, 3), (230, 120, 170) if is_pink else (90, 110, 220), np.uint8)
        pixels[::3, number % 7 :: 4] += 20
        write_image(pixels, tmp_path / f"{number}.png")
        rows.append(
            {
                "image_id": f"i{number}",
                "image_path": f"{number}.png",
                "patient_id": f"p{number // 2}",
            }
            | {"split": ("train", "train", "validation")[number // 2 % 3], "mpp": 0.5}
            | {"pink": is_pink, "blue": 1 - is_pink}
        )
    taxonomy = Taxonomy("colours", (Label(id="pink", name="Pink"), Label(id="blue", name="Blue")))
    manifest = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=taxonomy)
    write_manifest(manifest, tmp_path / "split.csv")
    config = TrainConfig.model_validate(
        {"manifest": tmp_path / "split.csv", "out": tmp_path / "run", "kind": "probe"}
        | {"model": {"name": "improved_seresnet_small", "input_size": 32}}
    )
    warnings: list[str] = []
    run = step.train_and_calibrate(config, warn=warnings.append)
    assert has_calibration(run)
    assert warnings == []


def test_only_the_main_process_calibrates(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "fit_calibration", _failing_fit)
    monkeypatch.setenv("RANK", "1")
    warnings: list[str] = []
    step.train_and_calibrate(config, warn=warnings.append)
    assert warnings == []
