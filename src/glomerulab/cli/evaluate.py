"""``glomerulab evaluate``: evaluate a run and write its report; compare several runs."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glomerulab.cli.options import (
    Dpi,
    FigureFormats,
    LanguageOption,
    WidthMm,
    figure_files,
    parse_pairs,
)

if TYPE_CHECKING:
    from glomerulab.evaluation.run_tables import RunTables
    from glomerulab.reports.run.figures import ImageAnalysis
    from glomerulab.reports.run.report import ExternalSet, RunReport

__all__ = ["evaluate"]


class ValuesOption(StrEnum):
    """What the columns of a model hold."""

    PROBABILITIES = "probabilities"
    PERCENT = "percent"
    LOGITS = "logits"


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folder, as `glomerulab train` writes it, or the predictions of any model as "
            "CSV; several are compared."
        ),
    ],
    *,
    on: Annotated[
        Path | None,
        typer.Option(help="Manifest of an external set to evaluate and show beside the run's own."),
    ] = None,
    taxonomy: Annotated[
        str | None,
        typer.Option(help="Labels of a table: TOML, or paper; by default those of the table."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table, NAME=THEIRS, such as label=diagnosis; several times."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="CSV of the true labels, joined by image; by default in the table."),
    ] = None,
    values: Annotated[
        ValuesOption | None,
        typer.Option(help="Of the model's columns in a table; by default recognised."),
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
        typer.Option(help="Of the page; figures stay English where no font has Chinese."),
    ] = LanguageOption.EN,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a comparison, by default the first run's; of a table, by default "
            "NAME-evaluation beside it."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that read images.")] = 1,
    figures: FigureFormats = None,
    dpi: Dpi = None,
    width_mm: WidthMm = None,
) -> None:
    """Evaluate a run and write report.html, figures/, scores.csv and scores.json into it.

    Several runs are compared instead: comparison.html and comparison.csv. Predictions of any other
    model are evaluated alike from their table alone.

    Example: glomerulab evaluate runs/first --on other-hospital/manifest.csv

    Example: glomerulab evaluate theirs.csv --truth labels.csv --column image_id=file
    """
    from glomerulab.runtime.progress import show_progress

    files = figure_files(figures, dpi, width_mm)
    tables = [run for run in runs if _is_table(run)]
    if not tables and (taxonomy or column or truth or values):
        raise typer.BadParameter(
            "--taxonomy, --column, --truth and --values are for the table of another model; a run "
            "has its own"
        )
    if on is not None and (tables or len(runs) > 1):
        raise typer.BadParameter(
            "--on evaluates one run with its model on an external set; give one run folder"
        )
    read = _TableReader(taxonomy, column or [], truth, values)
    folder = out or _folder_of(runs[0])
    if len(runs) > 1:
        from glomerulab.reports.run.comparison import write_comparison

        comparison = write_comparison(
            [read(run, _folder_of(run)) if run in tables else run for run in runs],
            folder,
            split=split,
            n_resamples=resamples,
            seed=seed,
            language=language.language,
            track=show_progress,
        )
        _print_report(comparison.headline, comparison.html_path)
        return
    if out is not None and not tables:
        raise typer.BadParameter(
            "--out is the folder of a comparison, or of the evaluation of a table; the report of a "
            "run is written into its folder"
        )
    from glomerulab.reports.run.figures import TABLES_ONLY
    from glomerulab.reports.run.report import write_run_report

    own, images, external = None, TABLES_ONLY, None
    if tables:
        own = read(runs[0], _without_run(folder))
    else:
        images, external = _analyse(runs[0], on, split, tables_only=tables_only, workers=workers)
    report = write_run_report(
        folder,
        tables=own,
        split=split,
        n_resamples=resamples,
        seed=seed,
        language=language.language,
        by=by or (),
        images=images,
        external=external,
        files=files,
        track=show_progress,
    )
    _print_findings(report)
    _print_report(report.headline, report.html_path)
    if external is not None and external.n_unreadable:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _TableReader:
    """Reads tables of other models with the options of the command line."""

    taxonomy: str | None
    columns: list[str]
    truth: Path | None
    values: ValuesOption | None

    def __call__(self, path: Path, out: Path) -> "RunTables":
        """Read a table, and print how it was understood."""
        from glomerulab.evaluation.prediction_files import read_prediction_file
        from glomerulab.taxonomy import load_taxonomy

        found = read_prediction_file(
            path,
            out=out,
            taxonomy=None if self.taxonomy is None else load_taxonomy(self.taxonomy),
            columns=parse_pairs(self.columns, "--column"),
            truth=self.truth,
            values=None if self.values is None else self.values.value,
        )
        for notice in found.notices:
            typer.echo(f"{path.name}: {notice}", err=True)
        return found.tables


def _is_table(run: Path) -> bool:
    return run.is_file() or (run.suffix.lower() in {".csv", ".tsv", ".txt"} and not run.is_dir())


def _folder_of(run: Path) -> Path:
    """Return the folder of a run, or that for the evaluation of a table."""
    return run.with_name(f"{run.stem}-evaluation") if _is_table(run) else run


def _without_run(folder: Path) -> Path:
    """Keep the report of another model's table out of the folder of a run."""
    if (folder / "config.toml").is_file():
        from glomerulab.errors import OutputError

        raise OutputError(
            "the folder holds a run; write the evaluation of a table to another one",
            where=str(folder),
        )
    return folder


def _analyse(
    run: Path, on: Path | None, split: str, *, tables_only: bool, workers: int
) -> "tuple[ImageAnalysis, ExternalSet | None]":
    """Analyse the images of the run and of an external set, unless only tables are wanted."""
    from glomerulab.evaluation.eval_set import rows_of_split
    from glomerulab.evaluation.run_tables import read_run
    from glomerulab.reports.run.figures import TABLES_ONLY

    if tables_only:
        if on is not None:
            raise typer.BadParameter(
                "--on needs the checkpoint and the images; leave out --tables-only"
            )
        return TABLES_ONLY, None
    rows_of_split(read_run(run).predictions, split)  # a wrong --split fails before any work
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


def _print_findings(report: "RunReport") -> None:
    """Print what a reader of the headline has to know first."""
    if report.notice:
        typer.echo(report.notice)
    if report.external is not None:
        typer.echo(report.external.headline)
    for warning in report.result.warnings:
        if warning.severe or warning.title.startswith("External"):
            typer.echo(f"{warning.title}: {warning.text}")


def _print_report(headline: str, html_path: Path) -> None:
    typer.echo(headline)
    typer.echo("Research use only.")
    typer.echo(f"Report: {html_path}")
