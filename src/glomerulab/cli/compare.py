"""``glomerulab compare``: several models under the same split and budget, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import LanguageOption, given_options, parse_settings

__all__ = ["compare"]


def compare(
    config: Annotated[Path, typer.Argument(help="TOML; configs/compare.toml explains every key.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder, instead of the file's.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest, instead of the file's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the training shared by all, such as epochs=30."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the predictions to evaluate.")] = "test",
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cross-validate every model instead, on these folds; --repeats or --group alone "
            "do so with the number of folds that crossval takes.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of the cross-validation.")] = 1,
    group: Annotated[
        str, typer.Option(help="Of the cross-validation: patient, or a column such as site.")
    ] = "patient",
    language: Annotated[
        LanguageOption, typer.Option(help="Of the page: en or zh.")
    ] = LanguageOption.EN,
) -> None:
    """Train several models alike and write their table, page and tests. Research use only.

    Run it again to continue.

    Example: glomerulab compare configs/compare.toml --manifest split.csv --set epochs=30
    """
    from glomerulab.reports.run.comparison import write_comparison
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.compare import compare as run_comparison
    from glomerulab.training.compare import read_compare_config

    comparison = read_compare_config(
        config, given_options(out=out, manifest=manifest, settings=parse_settings(settings) or None)
    )
    if folds is None and repeats == 1 and group == "patient":
        trained = run_comparison(comparison, track=show_progress)
    else:
        from glomerulab.pipeline.crossval import CrossvalSettings, compare_by_folds

        crossval = CrossvalSettings(folds=folds, repeats=repeats, group=group)
        trained = compare_by_folds(comparison, crossval, track=show_progress)
    report = write_comparison(
        list(trained.runs.values()),
        comparison.out,
        split=split,
        costs=trained.costs,
        language=language.language,
        track=show_progress,
    )
    typer.echo((comparison.out / "table1.md").read_text(encoding="utf-8"))
    typer.echo(report.headline)
    typer.echo(f"Report: {report.html_path} (research use only)")
