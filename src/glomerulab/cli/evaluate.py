"""``glomerulab evaluate``: judge a run and write its report; given several, compare them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate"]


class FigureLanguage(StrEnum):
    """Of the class names in figures."""

    EN = "en"
    ZH = "zh"


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folder, as `glomerulab train` writes it; several are compared."),
    ],
    *,
    split: Annotated[str, typer.Option(help="Which part of the predictions to judge.")] = "test",
    resamples: Annotated[
        int, typer.Option(min=2000, help="Resamples of patients, for the intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    language: Annotated[
        FigureLanguage,
        typer.Option(help="Of the class names in figures; English where no font has Chinese."),
    ] = FigureLanguage.EN,
    out: Annotated[
        Path | None,
        typer.Option(help="Where a comparison goes; by default into the first run's folder."),
    ] = None,
) -> None:
    """Judge a run and write report.html, figures/, scores.csv and scores.json into it.

    Several runs are compared instead: comparison.html and comparison.csv.

    Example: glomerulab evaluate runs/first
    """  # noqa: DOC501 - BadParameter is how typer refuses wrong usage
    from glomerulab.progress import shown

    if len(runs) > 1:
        from glomerulab.report.comparison_report import write_comparison

        comparison = write_comparison(
            runs, out or runs[0], split=split, n_resamples=resamples, seed=seed, track=shown
        )
        _tell(comparison.headline, comparison.html_path)
        return
    if out is not None:
        raise typer.BadParameter("is for a comparison of several runs", param_hint="--out")
    from glomerulab.report.run_report import write_run_report

    report = write_run_report(
        runs[0],
        split=split,
        n_resamples=resamples,
        seed=seed,
        language="zh" if language is FigureLanguage.ZH else "en",
        track=shown,
    )
    if report.notice:
        typer.echo(report.notice)
    _tell(report.headline, report.html_path)


def _tell(headline: str, html_path: Path) -> None:
    typer.echo(headline)
    typer.echo("Research use only.")
    typer.echo(f"Report: {html_path}")
