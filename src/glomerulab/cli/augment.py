"""``glomerulab augment``: add modified copies of training images."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["augment"]


def augment(
    manifest: Annotated[Path, typer.Argument(help="With a split; CSV or Parquet.")],
    *,
    to: Annotated[int, typer.Option(min=1, help="Final number of training images.")],
    out: Annotated[Path, typer.Option(help="Folder of the new images and manifest.csv.")],
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Copy rare label sets more often.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Add rotated, noisy and mixed copies to the training part; never to validation or test.

    Example: glomerulab augment split.csv --to 13471 --out augmented --workers 2
    """
    from glomerulab.cohort.manifest import read_manifest, write_manifest
    from glomerulab.pipeline.augment import augment_manifest
    from glomerulab.runtime.files import remove_partial_files
    from glomerulab.runtime.progress import show_progress

    if out.is_dir():
        remove_partial_files(out)
    result = augment_manifest(
        read_manifest(manifest),
        out,
        to=to,
        seed=seed,
        balanced=balanced,
        n_workers=workers,
        track=show_progress,
    )
    path = out / "manifest.csv"
    write_manifest(result.manifest, path)
    n_training = int((result.manifest.table["split"] == "train").sum())
    typer.echo(f"{path}: {n_training} training images (research use only)")
    for image_id, reason in result.failures.items():
        typer.echo(f"{image_id} could not be made: {reason}", err=True)
    if result.failures:
        typer.echo(f"{len(result.failures)} of the new images could not be made", err=True)
        raise typer.Exit(1)
