"""``glomerulab quickstart``: the whole pipeline on synthetic slides."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["quickstart"]


def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for everything it writes.")] = Path(
        "quickstart"
    ),
    *,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same slides, same model.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Render a synthetic cohort, extract, split, normalise, augment, train and report.

    Takes minutes on two cores without a GPU. Run again to continue. The biopsies are rendered:
    the scores show that the pipeline works and do not apply to patients. Research use only.

    Example: glomerulab quickstart --out my-first-run
    """
    from glomerulab.pipeline.quickstart import run_quickstart
    from glomerulab.runtime.progress import show_progress

    typer.echo("Everything below is synthetic. Research use only.")
    report = run_quickstart(
        out,
        seed=seed,
        n_workers=workers,
        warn=partial(typer.echo, err=True),
        track=show_progress,
    )
    typer.echo("")
    typer.echo(report.headline)
    typer.echo(
        "These biopsies are synthetic: the scores do not apply to patients. Research use only."
    )
    typer.echo(f"Report: {report.html_path}")
