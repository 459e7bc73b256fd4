import json
from pathlib import Path
from typing import Any

import pytest
import torch

from glomerulab.cohort.manifest import read_manifest
from glomerulab.errors import ConfigError, OutputError
from glomerulab.runtime.files import PARTIAL_INFIX
from glomerulab.training.config import TrainConfig, read_config
from glomerulab.training.run_folder import check_run_folder, open_run


def _open(config: TrainConfig, *, resume: bool = False) -> None:
    check_run_folder(config.out, config, resume=resume)
    manifest = read_manifest(config.manifest)
    open_run(config.out, config, manifest, device="cpu", warnings=["a warning"])


def _changed(config: TrainConfig, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(config.model_dump() | changes)


def _warnings(run: Path) -> list[str]:
    found: list[str] = json.loads((run / "environment.json").read_text())["warnings"]
    return found


def test_a_new_run_has_manifest_configuration_and_environment(config: TrainConfig) -> None:
    _open(config)
    kept = read_manifest(config.out / "manifest.csv")
    assert list(kept.table["image_id"]) == list(read_manifest(config.manifest).table["image_id"])
    assert read_config(config.out / "config.toml") == config
    assert _warnings(config.out) == ["a warning"]
    environment = json.loads((config.out / "environment.json").read_text())
    assert (environment["seed"], environment["device"]) == (config.seed, "cpu")
    assert environment["research_use_only"] is True
    assert environment["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert len(environment["manifest_sha256"]) == 64


def test_an_existing_run_is_resumed_only_on_request_and_with_the_same_settings(
    config: TrainConfig,
) -> None:
    _open(config)
    with pytest.raises(OutputError, match="resume it"):
        _open(config)
    _open(config, resume=True)
    with pytest.raises(ConfigError, match=r"seed 0 then, 99 now"):
        _open(_changed(config, seed=99), resume=True)


def test_settings_without_effect_may_change_and_rescuing_changes_are_recorded(
    config: TrainConfig,
) -> None:
    _open(config)
    _open(_changed(config, n_workers=1), resume=True)
    assert _warnings(config.out) == ["a warning"]
    _open(_changed(config, accumulate=2), resume=True)
    assert _warnings(config.out)[1:] == ["resumed with accumulate = 2 instead of 1"]
    assert read_config(config.out / "config.toml").accumulate == 2


def test_a_run_is_not_resumed_on_another_manifest(config: TrainConfig) -> None:
    _open(config)
    text = config.manifest.read_text()
    config.manifest.write_text(text.replace(",test,", ",train,", 1))
    with pytest.raises(ConfigError, match=r"manifest\.csv: .*changed"):
        _open(config, resume=True)
    config.manifest.write_text(text)
    _open(config, resume=True)


def test_partial_files_of_a_killed_run_are_removed(config: TrainConfig) -> None:
    _open(config)
    before = {path.name for path in config.out.iterdir()}
    (config.out / f".history.csv{PARTIAL_INFIX}999999999").write_text("epo")
    _open(config, resume=True)
    assert {path.name for path in config.out.iterdir()} == before
