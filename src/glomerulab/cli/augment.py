"""``glomerulab augment``: add modified copies of training images."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["augment"]


def augment(
    manifest: Annotated[Path, typer.Argument(help="With a split; CSV or Parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the new images and manifest.csv.")],
    to: Annotated[int | None, typer.Option(min=1, help="Final number of training images.")] = None,
    total: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Final number of images in all parts together, as the paper counts its 13,471; "
            "the copies are training images all the same.",
        ),
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Copy rare label sets more often.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Add rotated, noisy and mixed copies to the training part; never to validation or test.

    Example: glomerulab augment split.csv --total 13471 --out augmented --workers 2
    """
    from glomerulab.cohort.manifest import read_manifest, write_manifest
    from glomerulab.pipeline.augment import augment_manifest, training_size
    from glomerulab.runtime.files import remove_partial_files
    from glomerulab.runtime.progress import show_progress

    if (to is None) == (total is None):
        raise typer.BadParameter(
            "--to states the number of training images, --total that of all parts; give one of them"
        )
    images = read_manifest(manifest)
    if out.is_dir():
        remove_partial_files(out)
    result = augment_manifest(
        images,
        out,
        to=to or training_size(images, total or 0),
        seed=seed,
        balanced=balanced,
        n_workers=workers,
        track=show_progress,
    )
    path = out / "manifest.csv"
    write_manifest(result.manifest, path)
    n_training = int((result.manifest.table["split"] == "train").sum())
    n_used = int(result.manifest.table["split"].notna().sum())
    typer.echo(f"{path}: {n_training} training images, {n_used} in all parts (research use only)")
    for image_id, reason in result.failures.items():
        typer.echo(f"{image_id} could not be made: {reason}", err=True)
    if result.failures:
        typer.echo(f"{len(result.failures)} of the new images could not be made", err=True)
        raise typer.Exit(1)
