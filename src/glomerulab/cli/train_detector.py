"""``glomerulab train-detector``: a network that proposes glomeruli on slides without regions."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import (
    ClassOption,
    DrawnMppOption,
    IgnoreBoundsOption,
    SkipClassOption,
    parse_settings,
    region_options,
)

__all__ = ["train_detector"]


def train_detector(
    slides: Annotated[
        Path, typer.Argument(help="Slides table (CSV) with the patient of each slide.")
    ],
    *,
    regions: Annotated[
        Path,
        typer.Option(help="Region file, or a folder with one per slide: every glomerulus drawn."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder; its tiles/ gets what is cut.")],
    classes: ClassOption = None,
    skip_classes: SkipClassOption = None,
    ignore_bounds: IgnoreBoundsOption = False,
    drawn_mpp: DrawnMppOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of tiles, split and training.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the training, such as epochs=12."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that cut tiles.")] = 1,
) -> None:
    """Train a detector on slides whose glomeruli are all drawn. Run again to continue.

    Split by patient: 60 % for training, 20 % to choose the threshold, 20 % to measure accuracy.
    Use it with `glomerulab predict --detect OUT`. Research use only.

    Example: glomerulab train-detector slides.csv --regions regions/ --out detector --workers 2
    """
    from glomerulab.pipeline import detector
    from glomerulab.runtime.progress import show_progress

    trained = detector.train_detector(
        slides,
        regions,
        out,
        settings=parse_settings(settings),
        region_options=region_options(
            classes, skip_classes, ignore_bounds=ignore_bounds, drawn_mpp=drawn_mpp
        ),
        seed=seed,
        n_workers=workers,
        track=show_progress,
        echo=typer.echo,
    )
    typer.echo(trained.card.test_summary or "No slide was left to measure its accuracy.")
    typer.echo(f"detector: {trained.run}; predict with --detect {trained.run} (research use only)")
    for failure in trained.failures:
        region = f" region {failure.region}" if failure.region else ""
        typer.echo(f"not used: {failure.slide}{region}: {failure.reason}", err=True)
    if trained.failures:
        raise typer.Exit(1)
