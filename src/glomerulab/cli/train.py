"""``glomerulab train``: a model from a manifest with a split."""

import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["fit_run_calibration", "parsed_settings", "train"]


def train(
    config: Annotated[Path, typer.Argument(help="TOML; configs/default.toml explains every key.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder, instead of the file's.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest, instead of the file's.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Start from a file, a run folder, or imagenet.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE in TOML, such as optimizer.learning_rate=1e-4."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped.")
    ] = False,
) -> None:
    """Train a model and write its run folder. Research use only.

    Example: glomerulab train configs/default.toml --manifest split.csv --out run --set epochs=30
    """
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.config import read_config
    from glomerulab.training.run import train as train_run

    overrides = parsed_settings(settings)
    options = {"out": out, "manifest": manifest, "start.weights": weights}
    overrides |= {key: value for key, value in options.items() if value}
    settings_of_run = read_config(config, overrides)
    run = train_run(settings_of_run, resume=resume, track=show_progress, echo=typer.echo)
    if os.environ.get("RANK", "0") != "0":  # one of several processes prints
        return
    n_epochs = len((run / "history.csv").read_text(encoding="utf-8").splitlines()) - 1
    if n_epochs < settings_of_run.epochs:
        typer.echo(
            f"stopped after epoch {n_epochs} of {settings_of_run.epochs}: no lower validation loss "
            f"in the last {settings_of_run.patience}"
        )
    fit_run_calibration(run, resume=resume)
    typer.echo(f"run folder: {run} (research use only)")


def fit_run_calibration(run: Path, *, resume: bool) -> None:
    """Fit what `predict` needs; print a warning if it fails, since the training is still valid."""
    from glomerulab.errors import GlomerulabError
    from glomerulab.inference.calibration import has_calibration
    from glomerulab.inference.fit_calibration import fit_calibration
    from glomerulab.runtime.progress import show_progress

    if resume and has_calibration(run):
        return
    try:
        fit_calibration(run, track=show_progress)
    except GlomerulabError as error:
        typer.echo(f"not ready for `glomerulab predict`: {error}", err=True)


def parsed_settings(settings: list[str] | None) -> dict[str, object]:
    """Parse the values of ``--set`` into overrides for `read_config`."""
    return dict(_parsed(setting) for setting in settings or [])


def _parsed(setting: str) -> tuple[str, object]:
    """Parse KEY=VALUE; a value that is not TOML is a string, so that names need no quotes."""
    import tomllib

    from glomerulab.errors import ConfigError

    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set needs KEY=VALUE, got {setting!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
