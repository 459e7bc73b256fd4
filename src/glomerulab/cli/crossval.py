"""``glomerulab crossval``: train once per fold, and evaluate the pooled held-out predictions."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import LanguageOption, given_options, parse_settings

__all__ = ["crossval"]


def crossval(
    config: Annotated[Path, typer.Argument(help="TOML; configs/default.toml explains every key.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder, instead of the file's.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest, instead of the file's.")] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, help="By default those of the column fold, else 5; one per site with --group."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Divisions, each with another seed.")] = 1,
    group: Annotated[
        str, typer.Option(help="patient, or a column whose images stay together, such as site.")
    ] = "patient",
    validation: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=0.9,
            help="Share of the training patients that choose epochs, where the settings need one.",
        ),
    ] = 0.2,
    nested: Annotated[
        Path | None, typer.Option(help="Search (TOML) that chooses settings inside each fold.")
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Normalise stains to training images of each fold."),
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Start from a file, a run folder, or imagenet.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE in TOML, such as optimizer.learning_rate=1e-4."),
    ] = None,
    language: Annotated[
        LanguageOption, typer.Option(help="Of figures and captions.")
    ] = LanguageOption.EN,
) -> None:
    """Cross-validate: hold out every patient once, pool the predictions, and write their report.

    Run it again to continue. Research use only.

    Example: glomerulab crossval configs/default.toml --manifest crops/manifest.csv --out cv
    """
    from glomerulab.pipeline.crossval import CrossvalSettings, cross_validate
    from glomerulab.pipeline.evaluate import analyse_images
    from glomerulab.reports.run.report import write_run_report
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.config import read_config

    given = given_options(out=out, manifest=manifest, **{"start.weights": weights})
    folder = cross_validate(
        read_config(config, parse_settings(settings) | given),
        CrossvalSettings(folds, repeats, group, validation, nested, normalize),
        track=show_progress,
        echo=typer.echo,
    )
    images = analyse_images(folder, track=show_progress)
    report = write_run_report(
        folder, language=language.language, images=images, track=show_progress
    )
    typer.echo(report.headline)
    typer.echo(f"Report: {report.html_path} (research use only)")
