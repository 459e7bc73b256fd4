"""``glomerulab train-detector``: a network that proposes glomeruli on slides without regions."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.train import parsed_settings

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

    entries = read_slides(slides)
    config = _config(out, parsed_settings(settings) | {"seed": seed})
    tiles, failures = _tiles(entries, regions, config, workers=workers)
    run = train(config, resume=True, track=shown, echo=typer.echo)
    card = fit_detector(run, tiles, entries, regions, track=shown)
    typer.echo(card.test_summary or "No slide was left to say how well it does.")
    typer.echo(f"detector: {run}; predict with --detect {run} (research use only)")
    for failure in failures:
        typer.echo(f"not used: {failure.slide}: {failure.reason}", err=True)
    if failures:
        raise typer.Exit(1)


def _config(out: Path, overrides: dict[str, object]) -> "TrainConfig":
    from importlib import resources

    from glomerulab.training.config import read_config

    told = overrides | {"manifest": out / "tiles" / "split.csv", "out": out}
    with resources.as_file(resources.files("glomerulab.training") / "detector.toml") as path:
        return read_config(path, told)


def _tiles(
    entries: "Sequence[SlideEntry]", regions: Path, config: "TrainConfig", *, workers: int
) -> "tuple[Manifest, tuple[Failure, ...]]":
    """Cut the tiles, as large as the network's input, and divide them by patient."""
    from glomerulab.cohort.manifest import write_manifest
    from glomerulab.cohort.splits import split_by_patient
    from glomerulab.pipeline.tiles import TileSettings, cut_tiles
    from glomerulab.runtime.progress import shown

    size = TileSettings(side_px=config.model.input_size or TileSettings().side_px, seed=config.seed)
    folder = config.manifest.parent
    cut = cut_tiles(entries, regions, folder, settings=size, n_workers=workers, track=shown)
    tiles = split_by_patient(cut.manifest, seed=config.seed)
    write_manifest(tiles, config.manifest)
    shares = tiles.table.groupby("split").agg(
        n=("image_id", "size"), shown=("glomerulus", "sum"), slides=("slide_id", "nunique")
    )
    typer.echo(trained.card.test_summary or "No slide was left to measure its accuracy.")
    typer.echo(f"detector: {trained.run}; predict with --detect {trained.run} (research use only)")
    for failure in trained.failures:
        typer.echo(f"not used: {failure.slide}: {failure.reason}", err=True)
    if trained.failures:
        raise typer.Exit(1)
