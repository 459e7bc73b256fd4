"""``glomerulab``: the commands, and the one place that prints errors.

Command modules import at the top only what parsing needs, and everything else in the functions, so
that ``--help`` is fast.
"""

import atexit
import gc
import sys
from typing import Annotated, NoReturn

import typer

from glomerulab.cli.annotate import annotate_app
from glomerulab.cli.app import CommandGroup
from glomerulab.cli.augment import augment
from glomerulab.cli.cohort import cohort_app
from glomerulab.cli.compare import compare
from glomerulab.cli.config import config
from glomerulab.cli.crossval import crossval
from glomerulab.cli.distill import distill
from glomerulab.cli.embed import embed
from glomerulab.cli.evaluate import evaluate
from glomerulab.cli.explain import explain
from glomerulab.cli.export import export
from glomerulab.cli.extract import extract
from glomerulab.cli.manifest import app as manifest_app
from glomerulab.cli.normalize import normalize
from glomerulab.cli.phantom import phantom
from glomerulab.cli.predict import gates, predict
from glomerulab.cli.quickstart import quickstart
from glomerulab.cli.report import override, report
from glomerulab.cli.review import review
from glomerulab.cli.search import search
from glomerulab.cli.segment import segment
from glomerulab.cli.serve import api_key, serve
from glomerulab.cli.slide import slide_app
from glomerulab.cli.split import split
from glomerulab.cli.stain_check import stain_check
from glomerulab.cli.train import train
from glomerulab.cli.train_segmenter import train_segmenter
from glomerulab.errors import GlomerulabError

app = CommandGroup(
    name="glomerulab",
    help="From renal-biopsy slides to glomerulus labels, and from labels to a model that can be "
    "trusted. Research use only.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"glomerulab {installed_version('glomerulab')}")
        raise typer.Exit


app.command()(quickstart)
app.command()(phantom)
app.add_typer(slide_app, name="slide")
app.command()(extract)
app.add_typer(manifest_app, name="manifest")
app.add_typer(annotate_app, name="annotate")
app.command()(split)
app.command()(normalize)
app.command()(stain_check)
app.command()(augment)
app.command()(embed)
app.command()(distill)
app.command()(config)
app.command()(train)
app.command()(crossval)
app.command()(search)
app.command()(segment)
app.command()(compare)
app.command()(evaluate)
app.command()(train_segmenter)
app.command()(gates)
app.command()(predict)
app.add_typer(cohort_app, name="cohort")
app.command()(export)
app.command()(serve)
app.command()(api_key)
app.command()(explain)
app.command()(report)
app.command()(review)
app.command()(override)


def main() -> None:
    """Run the command line; an error is one line on standard error and exit code 1.

    That of a file whose folder may not be entered, or whose name no disk takes, comes from wherever
    it is first looked for.
    """
    # At exit Python collects garbage several times: with torch that is half a million objects and
    # seconds in which a finished command seems to hang.
    atexit.register(gc.freeze)
    try:
        app()
    except OSError as error:
        if not error.filename or not error.strerror:
            raise
        _end(
            GlomerulabError(
                f"the file or folder cannot be used ({error.strerror}); check its name and its "
                "permissions",
                where=str(error.filename),
            )
        )
    except GlomerulabError as error:
        _end(error)


def _end(error: GlomerulabError) -> NoReturn:
    sys.stderr.write(f"glomerulab: {error}\n")
    sys.exit(1)
