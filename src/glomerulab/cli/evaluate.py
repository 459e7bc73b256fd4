"""``glomerulab evaluate``: judge a run and write its report."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["evaluate"]


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, as `glomerulab train` writes it.")],
    split: Annotated[str, typer.Option(help="Which part of the predictions to judge.")] = "test",
    resamples: Annotated[
        int, typer.Option(min=2000, help="Resamples of patients, for the intervals.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
) -> None:
    """Judge a run and write report.html, figures/, scores.csv and scores.json into it.

    Example: glomerulab evaluate runs/first
    """
    from glomerulab.progress import shown
    from glomerulab.report.run_report import write_run_report

    report = write_run_report(run, split=split, n_resamples=resamples, seed=seed, track=shown)
    typer.echo(report.headline)
    typer.echo("Research use only.")
    typer.echo(f"Report: {report.html_path}")
