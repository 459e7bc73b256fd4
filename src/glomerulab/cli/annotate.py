"""``glomerulab annotate``: several people label images, blinded, and their labels are settled."""

import typer

from glomerulab.cli.annotate_serve import serve

__all__ = ["annotate_app"]

annotate_app = typer.Typer(
    help="Label images with several readers; agreement, adjudication, export.",
    no_args_is_help=True,
)
annotate_app.command()(serve)
