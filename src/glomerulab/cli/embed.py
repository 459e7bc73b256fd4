"""``glomerulab embed``: the features of the images of a manifest, as a table."""

from pathlib import Path
from typing import Annotated

import typer

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
) -> None:
    """Compute the features of every image with a frozen network. Research use only.

    Run it again to continue.

    Example: glomerulab embed crops/manifest.csv --model lite2 --out features
    """
    from glomerulab.pipeline.embed import write_features
    from glomerulab.runtime.progress import show_progress

    written = write_features(
        manifest, model, out, weights=weights, n_views=views, n_workers=workers, track=show_progress
    )
    typer.echo(f"{written.n_images} images, {written.n_features} features: {written.path}")
    typer.echo("Research use only.")
