"""``glomerulab train``: a model from a manifest with a split."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import parse_settings

__all__ = ["train"]


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
    from functools import partial

    from glomerulab.pipeline.train import is_main_process, train_and_calibrate
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.config import read_config

    options = {"out": out, "manifest": manifest, "start.weights": weights}
    given = {key: value for key, value in options.items() if value}
    run = train_and_calibrate(
        read_config(config, parse_settings(settings) | given),
        resume=resume,
        track=show_progress,
        echo=typer.echo,
        warn=partial(typer.echo, err=True),
    )
    if is_main_process():
        typer.echo(f"run folder: {run} (research use only)")
