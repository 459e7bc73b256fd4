"""``glomerulab search``: a hyperparameter search on the validation part."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import given_options, parse_settings

__all__ = ["search"]


def search(
    config: Annotated[Path, typer.Argument(help="TOML; configs/search.toml explains every key.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Folder, instead of the file's.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Manifest, instead of the file's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE of the training shared by all, such as epochs=30."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of the database that workers share.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Of all workers together, instead of the file's.")
    ] = None,
) -> None:
    """Search for the best settings on the validation part. Research use only.

    Run it again to continue; run it several times at once for several workers.

    Example: glomerulab search configs/search.toml --manifest split.csv --out search
    """
    from glomerulab.runtime.progress import show_progress
    from glomerulab.training.search import read_search_config
    from glomerulab.training.search import search as run_search

    overrides = given_options(
        out=out,
        manifest=manifest,
        storage=storage,
        n_trials=trials,
        settings=parse_settings(settings) or None,
    )
    result = run_search(read_search_config(config, overrides), track=show_progress)
    typer.echo(f"best of {len(result.trials)} trials: {result.best_value:.4f}, with")
    for key, value in result.best_values.items():
        typer.echo(f"  {key} = {value}")
    typer.echo(f"configuration: {result.best_config} (research use only)")
