"""``glomerulab embed``: the features of the images of a manifest, as a table."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import ClusterOption, PartOption, SchedulerOption

__all__ = ["embed"]


def embed(
    manifest: Annotated[Path, typer.Argument(help="Manifest, CSV or Parquet.")],
    *,
    model: Annotated[str, typer.Option(help="Network of the registry, or a run folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the features.")],
    weights: Annotated[
        str, typer.Option(help="Initial weights of a network: imagenet, a file, or random.")
    ] = "imagenet",
    views: Annotated[
        int, typer.Option(help="Orientations whose features are averaged: 1, 2, 4 or 8.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
    part: PartOption = None,
    scheduler: SchedulerOption = None,
    cluster: ClusterOption = None,
) -> None:
    """Compute the features of every image with a frozen network. Research use only.

    Run it again to continue.

    Example: glomerulab embed crops/manifest.csv --model lite2 --out features
    """
    from glomerulab.pipeline.embed import write_features
    from glomerulab.runtime.cluster import open_workers
    from glomerulab.runtime.parallel import parse_part
    from glomerulab.runtime.progress import show_progress

    with open_workers(scheduler, cluster) as pool:
        written = write_features(
            manifest,
            model,
            out,
            weights=weights,
            n_views=views,
            n_workers=workers,
            workers=pool,
            part=None if part is None else parse_part(part),
            track=show_progress,
        )
    n_features = "" if written.n_features is None else f", {written.n_features} features"
    typer.echo(f"{written.n_images} images{n_features}: {written.path}")
    typer.echo("Research use only.")
