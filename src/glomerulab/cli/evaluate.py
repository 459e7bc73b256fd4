"""``glomerulab evaluate``: evaluate a run and write its report; compare several runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import LanguageOption

if TYPE_CHECKING:
    from glomerulab.reports.run.figures import ImageAnalysis
    from glomerulab.reports.run.report import ExternalSet

__all__ = ["evaluate"]


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folder, as `glomerulab train` writes it; several are compared."),
    ],
    *,
    on: Annotated[
        Path | None,
        typer.Option(help="Manifest of an external set to evaluate and show beside the run's own."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the predictions to evaluate.")] = "test",
    by: Annotated[
        list[str] | None,
        typer.Option(help="Column of the manifest for subgroups, such as site; several times."),
    ] = None,
    tables_only: Annotated[
        bool, typer.Option("--tables-only", help="Open no image and no checkpoint.")
    ] = False,
    resamples: Annotated[
        int, typer.Option(min=2000, help="Resamples of patients, for the intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    language: Annotated[
        LanguageOption,
        typer.Option(help="Of figures and captions; English where no font has Chinese."),
    ] = LanguageOption.EN,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of a comparison; by default the first run's folder."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read images.")] = 1,
) -> None:
    """Evaluate a run and write report.html, figures/, scores.csv and scores.json into it.

    Several runs are compared instead: comparison.html and comparison.csv.

    Example: glomerulab evaluate runs/first --on other-hospital/manifest.csv
    """
    from glomerulab.runtime.progress import show_progress

    if len(runs) > 1:
        if on is not None:
            raise typer.BadParameter(
                f"--on evaluates one run on an external set, but {len(runs)} runs are given"
            )
        from glomerulab.reports.run.comparison import write_comparison

        comparison = write_comparison(
            runs, out or runs[0], split=split, n_resamples=resamples, seed=seed, track=show_progress
        )
        _print_report(comparison.headline, comparison.html_path)
        return
    if out is not None:
        raise typer.BadParameter(
            "--out is the folder of a comparison of several runs; the report of one is written "
            "into its folder"
        )
    from glomerulab.reports.run.report import write_run_report

    images, external = _analyse(runs[0], on, split, tables_only=tables_only, workers=workers)
    report = write_run_report(
        runs[0],
        split=split,
        n_resamples=resamples,
        seed=seed,
        language=language.language,
        by=by or (),
        images=images,
        external=external,
        track=show_progress,
    )
    if report.notice:
        typer.echo(report.notice)
    if report.external is not None:
        typer.echo(report.external.headline)
    _print_report(report.headline, report.html_path)
    if external is not None and external.n_unreadable:
        raise typer.Exit(1)


def _analyse(
    run: Path, on: Path | None, split: str, *, tables_only: bool, workers: int
) -> "tuple[ImageAnalysis, ExternalSet | None]":
    """Analyse the images of the run and of an external set, unless only tables are wanted."""
    from glomerulab.reports.run.figures import TABLES_ONLY

    if tables_only:
        if on is not None:
            raise typer.BadParameter(
                "--on needs the checkpoint and the images; leave out --tables-only"
            )
        return TABLES_ONLY, None
    from glomerulab.pipeline.evaluate import analyse_images, predict_external_set
    from glomerulab.runtime.progress import show_progress

    external = None
    if on is not None:
        if on.resolve().parent == run.resolve():
            raise typer.BadParameter(
                f"{on} is the run's own manifest; --on takes that of an external set"
            )
        external = predict_external_set(run, on, n_workers=workers, track=show_progress)
    images = analyse_images(run, split, n_workers=workers, track=show_progress)
    for notice in (*(external.images.notices if external else ()), *images.notices):
        typer.echo(notice, err=True)
    return images, external


def _print_report(headline: str, html_path: Path) -> None:
    typer.echo(headline)
    typer.echo("Research use only.")
    typer.echo(f"Report: {html_path}")
