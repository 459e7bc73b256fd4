"""The run folder of a training: created, or checked and resumed, with a record of its origin."""

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.errors import ConfigError, OutputError, RunError
from glomerulab.models.card import Origin
from glomerulab.models.hardware import processor_name
from glomerulab.runtime.files import atomic_write, make_folder, read_json, remove_partial_files
from glomerulab.runtime.resume import Change, changed_settings, describe_changes
from glomerulab.runtime.sealing import is_crossval, refuse_other_model
from glomerulab.training.config import TrainConfig, read_config, write_config

PACKAGES = ("glomerulab", "torch", "torchvision", "timm", "accelerate", "numpy", "pandas", "pillow")

WITHOUT_EFFECT = ("out", "n_workers", "tensorboard")
"""Settings that do not change the weights."""
CHANGEABLE = ("accumulate", "clip_gradient_norm", "device", "optimizer.learning_rate", "precision")
"""Settings that may change to rescue a failed run; the resumed run records the change."""


def check_run_folder(run: Path, config: TrainConfig, *, resume: bool) -> None:
    """Check that the folder is empty or holds the run to resume."""
    if is_crossval(run):
        raise OutputError(
            "this folder holds a cross-validation; choose another folder", where=str(run)
        )
    refuse_other_model(run, own="config.toml")
    if not (run / "config.toml").is_file():
        return
    if not resume:
        raise OutputError(
            "this folder holds a run already; resume it (--resume, in Python "
            "`resume=True`), or choose another folder",
            where=str(run),
        )
    changes = _changes(run, config, ignore=(*WITHOUT_EFFECT, *CHANGEABLE))
    if changes:
        raise ConfigError(
            f"the run in this folder has other settings ({describe_changes(changes)}); resume it "
            "with the same configuration, or choose another output folder",
            where=str(run / "config.toml"),
        )
    # A training image of the run may be in the test part now.
    if _recorded_manifest_hash(run / "environment.json") != file_sha256(config.manifest):
        raise ConfigError(
            "the manifest has changed since the run began (manifest.csv in the run folder is the "
            f"original); choose another output folder to train on the new one (the run: {run})",
            where=str(config.manifest),
        )


def open_run(
    run: Path,
    config: TrainConfig,
    manifest: Manifest,
    *,
    device: str,
    warnings: list[str],
    origin: Origin | None = None,
) -> None:
    """Create the run folder, or resume one that `check_run_folder` has accepted.

    `warnings` go to ``environment.json`` for readers of the run's scores, and the `origin` of
    published starting weights for the model card.
    """
    config_path = run / "config.toml"
    if run.is_dir():
        remove_partial_files(run)
    if config_path.is_file():
        _record_changes(run, config)
        return
    make_folder(run)
    write_manifest(manifest, run / "manifest.csv")
    environment = describe_environment(config, device=device)
    facts = {} if origin is None else {"starting_weights": origin.model_dump(exclude_none=True)}
    write_json({**environment, **facts, "warnings": warnings}, run / "environment.json")
    write_config(config, config_path)  # last, so that it marks a complete folder


def describe_environment(config: TrainConfig, *, device: str) -> dict[str, object]:
    """Return versions, machine, commit, seed and the manifest's hash, to reproduce a run."""
    facts = machine_facts(config.seed, device=device)
    return facts | {"manifest_sha256": file_sha256(config.manifest)}


def machine_facts(seed: int, *, device: str) -> dict[str, object]:
    """Return versions, machine, commit and seed."""
    return {
        "research_use_only": True,
        "seed": seed,
        "commit": _commit(),
        "versions": {"python": platform.python_version()}
        | {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "platform": platform.platform(),
        "processor": processor_name(),
        "device": device,
        "n_threads": torch.get_num_threads(),
    }


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _changes(run: Path, config: TrainConfig, *, ignore: tuple[str, ...] = ()) -> list[Change]:
    """Compare the settings of the run in a folder with the present ones."""
    then = read_config(run / "config.toml").model_dump(mode="json")
    return changed_settings(then, config.model_dump(mode="json"), ignore=ignore)


def _record_changes(run: Path, config: TrainConfig) -> None:
    """Update the configuration of a resumed run, with a warning for each setting in CHANGEABLE."""
    changes = _changes(run, config)
    if not changes:
        return
    path = run / "environment.json"
    environment = read_json(path, "record of the environment", error=RunError)
    for change in changes:
        warning = f"resumed with {change.name} = {change.now!r} instead of {change.then!r}"
        if change.name in CHANGEABLE and warning not in environment["warnings"]:
            environment["warnings"].append(warning)
    write_json(environment, path)
    write_config(config, run / "config.toml")


def _recorded_manifest_hash(path: Path) -> str:
    try:
        facts = read_json(path, "record of the environment", error=RunError, way_out="train again")
        return str(facts["manifest_sha256"])
    except (KeyError, TypeError) as error:
        raise RunError(
            "the record of the environment has no manifest_sha256; train again", where=str(path)
        ) from error


def write_json(facts: dict[str, object], path: Path) -> None:
    """Write facts of a run atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source, if it is run from a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() or None
