from pathlib import Path

import pytest

from glomerulab.errors import CheckpointError
from glomerulab.pipeline import train as step
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


def test_only_the_main_process_calibrates(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "fit_calibration", _failing_fit)
    monkeypatch.setenv("RANK", "1")
    warnings: list[str] = []
    step.train_and_calibrate(config, warn=warnings.append)
    assert warnings == []
