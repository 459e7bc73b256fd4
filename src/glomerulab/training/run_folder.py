"""The folder of a run as a training opens it: made new, or taken up as it was configured."""

from pathlib import Path

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.errors import ConfigError, OutputError
from glomerulab.runtime.files import make_folder, remove_partial_files
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.environment import (
    add_warning,
    hash_of,
    kept_manifest_hash,
    write_environment,
)

__all__ = ["open_run", "refuse_other_run"]

CHANGES_NOTHING = {"out", "n_workers", "tensorboard"}
CHANGES_THE_REST = {
    "accumulate",
    "clip_gradient_norm",
    "optimizer.learning_rate",
    "precision",
}
"""What helps a run that ended by itself; a resumed run notes that it was changed."""


def refuse_other_run(run: Path, config: TrainConfig, *, resume: bool) -> None:
    """Make sure that no run stands there, or the one that is to be resumed.

    Parameters
    ----------
    run : Path
    config : TrainConfig
    resume : bool

    Raises
    ------
    OutputError
        If a run stands there and `resume` is false.
    ConfigError
        If the run there was configured otherwise in what changes its weights, or its manifest has
        changed since.
    """
    config_path = run / "config.toml"
    if not config_path.is_file():
        return
    if not resume:
        raise OutputError(
            "holds a run already; give --resume to go on with it, or another --out",
            where=str(run),
        )
    old, new = _both(run, config)
    for key in _differing(old, new):
        if key not in CHANGES_NOTHING | CHANGES_THE_REST:
            raise ConfigError(
                f"the run was begun with {key} = {old.get(key)!r}, now it is {new.get(key)!r}; "
                "resume with the same configuration, or give another --out",
                where=str(config_path),
            )
    # An image that was learned from may stand in the test part now.
    if kept_manifest_hash(run / "environment.json") != hash_of(config.manifest):
        raise ConfigError(
            "has changed since the run began, which keeps the one of then as manifest.csv; give "
            f"another --out to train on this one (the run: {run})",
            where=str(config.manifest),
        )


def open_run(
    run: Path,
    config: TrainConfig,
    manifest: Manifest,
    *,
    device: str,
    warnings: list[str],
) -> None:
    """Make the run folder, or take up the one there, which `refuse_other_run` let through.

    Parameters
    ----------
    run : Path
    config : TrainConfig
    manifest : Manifest
    device : str
        Noted in ``environment.json``.
    warnings : list of str
        What a reader of the run's scores has to know.
    """
    config_path = run / "config.toml"
    if config_path.is_file():
        _take_changes(run, config)
        remove_partial_files(run)
        return
    make_folder(run)
    manifest_path = run / "manifest.csv"
    write_manifest(manifest, manifest_path)
    write_environment(
        run / "environment.json",
        seed=config.seed,
        manifest_path=config.manifest,
        device=device,
        warnings=warnings,
    )
    write_config(config, config_path)  # last: where it stands, the others do


def _take_changes(run: Path, wanted: TrainConfig) -> None:
    """Go on with what is allowed to be configured otherwise, and note it."""
    old, new = _both(run, wanted)
    differ = _differing(old, new)
    if not differ:
        return
    for key in sorted(CHANGES_THE_REST.intersection(differ)):
        add_warning(
            run / "environment.json",
            f"resumed with {key} = {new.get(key)!r} instead of {old.get(key)!r}",
        )
    write_config(wanted, run / "config.toml")


def _both(run: Path, wanted: TrainConfig) -> tuple[dict[str, object], dict[str, object]]:
    """Return how a run was configured, and how it is now, by dotted keys."""
    standing = read_config(run / "config.toml")
    return _flat(standing.model_dump(mode="json")), _flat(wanted.model_dump(mode="json"))


def _differing(old: dict[str, object], new: dict[str, object]) -> list[str]:
    return [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Name what stands in tables by dotted keys."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
