"""``glomerulab train-segmenter``: a network that outlines structures."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import parse_settings

__all__ = ["train_segmenter"]


def train_segmenter(
    config: Annotated[
        Path, typer.Argument(help="TOML; configs/segmenter.toml explains every key.")
    ],
    *,
    out: Annotated[Path | None, typer.Option(help="Run folder, instead of the file's.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Start from imagenet, a file for the encoder, or another segmenter."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validate: hold out and score every group once."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE in TOML, such as optimizer.learning_rate=1e-3."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was stopped.")
    ] = False,
) -> None:
    """Train a network that outlines structures on images with masks. Research use only.

    Use it with `glomerulab segment` and `glomerulab predict --detect`.

    Example: glomerulab train-segmenter configs/segmenter.toml --out segmenter --weights imagenet
    """
    from glomerulab.evaluation.segmentation import scores_summary
    from glomerulab.pipeline import train_segmenter as pipeline
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.segmentation.config import read_segmenter_config

    options = {"out": out, "start.weights": weights}
    given = {key: value for key, value in options.items() if value}
    trained = pipeline.train_segmenter(
        read_segmenter_config(config, parse_settings(settings) | given),
        folds=folds,
        resume=resume,
        track=show_progress,
        echo=typer.echo,
    )
    typer.echo(scores_summary(trained.scores, "en") or "No group was held out to score it.")
    kind = "segmenter" if folds is None else "cross-validation"
    typer.echo(f"{kind}: {trained.run} (research use only)")
    for failure in trained.failures:
        typer.echo(f"not used: {failure.set_name}/{failure.name}: {failure.reason}", err=True)
    if trained.failures:
        raise typer.Exit(1)
