"""``glomerulab review``: correct the calls of a report in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import (
    AcceptEditsOption,
    LanguageOption,
    ReferencesOption,
    StructuresOption,
    SurroundingsOption,
)

__all__ = ["review"]


def review(
    predictions: Annotated[Path, typer.Argument(help="Folder that `glomerulab predict` wrote.")],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8810,
    language: Annotated[
        LanguageOption, typer.Option(help="Of the pages: en or zh.")
    ] = LanguageOption.EN,
    rules: Annotated[
        list[str] | None,
        typer.Option(help="Rule set, by name or TOML file; may be given again. Default: all."),
    ] = None,
    slides: SurroundingsOption = None,
    structures: StructuresOption = None,
    references: ReferencesOption = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the pages in the browser.")
    ] = False,
    accept_edits: AcceptEditsOption = False,
) -> None:
    """Change calls in the browser: every count, range and rule result follows at once.

    The pages are those of `glomerulab report`, on this computer alone. A change is kept in
    overrides.csv with name, time and reason; the model's call stays visible. Research use only.

    Example: glomerulab review predictions --open
    """
    from glomerulab.apps.review.server import review as run_review
    from glomerulab.cases.rules import load_rule_set

    run_review(
        predictions,
        port=port,
        language=language.language,
        echo=typer.echo,
        rule_sets=[load_rule_set(name) for name in rules] if rules else None,
        open_browser=open_browser,
        accept_edits=accept_edits,
        slides=slides,
        structures=structures,
        references=references,
    )
