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
    from glomerulab.evaluation.segmentation import pooled_dice, scores_summary
    from glomerulab.models.card import MIN_DICE
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
    typer.echo(
        scores_summary(trained.scores, "en")
        or "No group was held out, so it is not known how well the structures are found. Raise "
        "held_out_share, or give --folds."
    )
    dice = pooled_dice(trained.scores)
    if hardly := [f"{name} ({dice[name]:.2f})" for name in dice if dice[name] < MIN_DICE]:
        typer.echo(
            f"note: these have a Dice below {MIN_DICE:g}, so they are outlined and not counted: "
            + ", ".join(hardly)
        )
    kind = "segmenter" if folds is None else "cross-validation"
    typer.echo(f"{kind}: {trained.run} (research use only)")
    for failure in trained.failures:
        typer.echo(f"not used: {failure.set_name}/{failure.name}: {failure.reason}", err=True)
    if trained.failures:
        raise typer.Exit(1)
