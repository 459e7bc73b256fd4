"""``glomerulab serve``: a model over HTTP; ``glomerulab api-key``: its keys."""

from pathlib import Path
from typing import Annotated

import typer

from glomerulab.cli.options import LanguageOption, ReferencesOption

__all__ = ["api_key", "serve"]


def serve(
    *,
    model: Annotated[Path, typer.Option(help="Run folder, or what `export` made of one.")],
    keys: Annotated[
        Path | None, typer.Option(help="Key file of `api-key`; needed beyond this computer.")
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="The one folder whose slides clients may name.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="Folder where jobs and results are kept; with --slides.")
    ] = None,
    detector: Annotated[
        Path | None,
        typer.Option(help="Segmenter that outlines glomeruli where a job names no regions."),
    ] = None,
    references: ReferencesOption = None,
    inbox: Annotated[
        Path | None,
        typer.Option(
            help="Folder whose slides become jobs by themselves, with --detector; results are put "
            "into FOLDER.results beside it."
        ),
    ] = None,
    language: Annotated[
        LanguageOption, typer.Option(help="Of the reports of the inbox: en or zh.")
    ] = LanguageOption.EN,
    taxonomy: Annotated[
        str | None, typer.Option(help="Refuse a model of other labels: a name, or a TOML file.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes of a job that cut and normalise.")
    ] = 1,
    max_upload_mib: Annotated[
        int, typer.Option(min=1, max=1024, help="Largest accepted crop, in MiB.")
    ] = 20,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name that clients use, such as a proxy's; may be given again."),
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy whose X-Forwarded-For is trusted; default: none."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8800,
) -> None:
    """Predict crops at once and slides as jobs, over HTTP and on a page. Research use only.

    Example: glomerulab serve --model run --slides slides/ --jobs jobs/ --keys keys.json
    """
    from glomerulab.apps.serve.server import serve as run_server
    from glomerulab.apps.serve.settings import Limits, ServeSettings
    from glomerulab.taxonomy import load_taxonomy

    settings = ServeSettings(
        model,
        keys,
        slides,
        jobs,
        detector,
        inbox,
        language.language,
        None if taxonomy is None else load_taxonomy(taxonomy),
        workers,
        tuple(name or ()),
        tuple(proxy or ()),
        Limits(upload_bytes=max_upload_mib * 2**20),
        references,
    )
    run_server(settings, host=host, port=port, echo=typer.echo)


def api_key(
    name: Annotated[str, typer.Argument(help="Of the client; jobs belong to this name.")],
    *,
    keys: Annotated[Path, typer.Option(help="Key file; created if missing.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the key.")] = False,
) -> None:
    """Create an API key for `serve` and print it once: the file keeps only its hash.

    Example: glomerulab api-key pathology-lis --keys keys.json
    """
    from glomerulab.apps.serve.auth import add_key, revoke_key

    if revoke:
        revoke_key(keys, name)
        typer.echo(f"The key of {name} is no longer valid.")
        return
    typer.echo(add_key(keys, name))
    typer.echo(
        f"Key of {name}, printed only this once. Send it as: Authorization: Bearer KEY", err=True
    )
