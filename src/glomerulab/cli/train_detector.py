"""``glomerulab train-detector``: a network that proposes glomeruli on slides without regions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.train import parsed_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glomerulab.cohort.manifest import Manifest
    from glomerulab.cohort.slides_table import SlideEntry
    from glomerulab.pipeline.crop_plan import Failure
    from glomerulab.training.config import TrainConfig

__all__ = ["train_detector"]


def train_detector(
    slides: Annotated[
        Path, typer.Argument(help="Slides table (CSV) that says whose each slide is.")
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

    Split by patient: 6 of 10 for training, 2 to choose the threshold, 2 to say how well it does.
    Use it with `glomerulab predict --detect OUT`. Research use only.

    Example: glomerulab train-detector slides.csv --regions regions/ --out detector --workers 2
    """
    from glomerulab.cohort.slides_table import read_slides
    from glomerulab.inference.fit_detector import fit_detector
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.run import train

    entries = read_slides(slides)
    config = _config(out, parsed_settings(settings) | {"seed": seed})
    tiles, failures = _tiles(entries, regions, config, workers=workers)
    run = train(config, resume=True, track=show_progress, tell=typer.echo)
    card = fit_detector(run, tiles, entries, regions, track=show_progress)
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
    from glomerulab.runtime.progress import show_progress

    size = TileSettings(side_px=config.model.input_size or TileSettings().side_px, seed=config.seed)
    folder = config.manifest.parent
    cut = cut_tiles(entries, regions, folder, settings=size, n_workers=workers, track=show_progress)
    tiles = split_by_patient(cut.manifest, seed=config.seed)
    write_manifest(tiles, config.manifest)
    shares = tiles.table.groupby("split").agg(
        n=("image_id", "size"), n_positive=("glomerulus", "sum"), slides=("slide_id", "nunique")
    )
    for name, row in shares.iterrows():
        typer.echo(
            f"{name}: {row['n']} tiles of {row['slides']} slides, {row['n_positive']} glomerulus"
        )
    return tiles, cut.failures
