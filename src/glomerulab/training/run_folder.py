"""The folder of a run as a training opens it: made new, or taken up as it was configured."""

from pathlib import Path

from glomerulab.cohort.manifest import Manifest, write_manifest
from glomerulab.errors import ConfigError, OutputError
from glomerulab.files import make_folder, remove_partial_files
from glomerulab.run_seal import SEAL_FILE
from glomerulab.training.config import TrainConfig, read_config, write_config
from glomerulab.training.environment import add_warning, write_environment

__all__ = ["open_run"]

CHANGES_NOTHING = {"out", "n_workers", "tensorboard"}
CHANGES_THE_REST = {
    "accumulate", "clip_gradient_norm", "optimizer.learning_rate", "precision",
}  # fmt: skip
"""What helps a run that ended by itself; a resumed run notes that it was changed."""


def open_run(
    run: Path,
    config: TrainConfig,
    manifest: Manifest,
    *,
    resume: bool,
    device: str,
    warnings: list[str],
) -> None:
    """Make the run folder, or make sure that the one there is this run.

    Parameters
    ----------
    run : Path
    config : TrainConfig
    manifest : Manifest
    resume : bool
        Go on with the run that stands there, if there is one.
    device : str
        Noted in ``environment.json``.
    warnings : list of str
        What a reader of the run's scores has to know.

    Raises
    ------
    OutputError
        If a run stands there and `resume` is false.
    ConfigError
        If the run there was configured otherwise in what changes its weights.
    """
    config_path = run / "config.toml"
    if config_path.is_file():
        if not resume:
            raise OutputError(
                "holds a run already; give --resume to go on with it, or another --out",
                where=str(run),
            )
        _take_changes(run, config, where=str(config_path))
        remove_partial_files(run)
        return
    make_folder(run)
    manifest_path = run / "manifest.csv"
    write_manifest(manifest, manifest_path)
    write_environment(
        run / "environment.json", seed=config.seed, manifest_path=config.manifest, device=device,
        warnings=warnings,
    )  # fmt: skip
    write_config(config, config_path)  # last: where it stands, the others do


def _take_changes(run: Path, wanted: TrainConfig, *, where: str) -> None:
    """Go on with another configuration, and note it, where that is allowed."""  # noqa: DOC501
    old, new = (
        _flat(one.model_dump(mode="json")) for one in (read_config(run / "config.toml"), wanted)
    )
    differ = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    for key in differ:
        if key not in CHANGES_NOTHING | CHANGES_THE_REST:
            raise ConfigError(
                f"the run was begun with {key} = {old.get(key)!r}, now it is {new.get(key)!r}; "
                "resume with the same configuration, or give another --out",
                where=where,
            )
    if not differ or (run / SEAL_FILE).is_file():  # a complete run stays as it was sealed
        return
    for key in sorted(CHANGES_THE_REST.intersection(differ)):
        add_warning(
            run / "environment.json",
            f"resumed with {key} = {new.get(key)!r} instead of {old.get(key)!r}",
        )
    write_config(wanted, run / "config.toml")


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Name what stands in tables by dotted keys."""
    flat: dict[str, object] = {}
    for key, value in table.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
