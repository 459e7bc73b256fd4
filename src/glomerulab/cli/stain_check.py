"""``glomerulab stain-check``: compare a cohort before and after stain normalisation."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import Dpi, FigureFormats, LanguageOption, WidthMm, figure_files

__all__ = ["stain_check"]


def stain_check(
    before: Annotated[Path, typer.Argument(help="Manifest of the original images.")],
    after: Annotated[Path, typer.Argument(help="Manifest that `glomerulab normalize` wrote.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of stain_check.html and stain_check.csv.")],
    predict: Annotated[
        str, typer.Option(help="Column to predict from the pixels: slide_id, or a scanner or site.")
    ] = "slide_id",
    language: Annotated[
        LanguageOption,
        typer.Option(help="Of the page; figures stay English where no font has Chinese."),
    ] = LanguageOption.EN,
    seed: Annotated[int, typer.Option(min=0, help="Seed of t-SNE, folds, shuffles.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    figures: FigureFormats = None,
    dpi: Dpi = None,
    width_mm: WidthMm = None,
) -> None:
    """Compare images before and after normalisation; research use only.

    Example: glomerulab stain-check cohort/manifest.csv normalized/manifest.csv --out check
    """
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.pipeline.stain_check import check_stains
    from glomerulab.reports.run.stain_check import write_stain_check
    from glomerulab.runtime.progress import show_progress

    asked = figure_files(figures, dpi, width_mm)
    original = read_manifest(before)
    check = check_stains(
        original,
        read_manifest(after),
        predict=predict,
        seed=seed,
        n_workers=workers,
        track=show_progress,
    )
    files = write_stain_check(
        check,
        out,
        is_synthetic=original.is_synthetic,
        language=language.language,
        files=asked,
    )
    typer.echo(files.headline)
    typer.echo("Research use only.")
    typer.echo(f"Page: {files.html_path}")
    if check.unreadable:
        typer.echo(f"{len(check.unreadable)} images could not be compared; see the page", err=True)
        raise typer.Exit(1)
