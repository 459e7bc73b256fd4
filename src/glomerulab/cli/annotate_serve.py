"""``glomerulab annotate serve``: the annotation program in the browser."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["serve"]


def serve(
    *,
    db: Annotated[str, typer.Option(help="Database: a SQLite file, or postgresql://…")],
    manifest: Annotated[
        Path | None, typer.Option(help="Images of a new study; not needed for one that exists.")
    ] = None,
    slides: Annotated[
        Path | None, typer.Option(help="Slides to draw boxes on: one, a folder, or a table (CSV).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address of a proxy whose X-Forwarded-For is believed; nobody's is else."
        ),
    ] = None,
) -> None:
    """Label images in the browser: several readers, blinded, nothing lost.

    Prints the address. The first start of a new database also prints the address at which its
    owner makes the study. Research use only.

    Example: glomerulab annotate serve --manifest crops/manifest.csv --db annotations.db
    """
    from glomerulab.apps.annotation.store.database import open_store
    from glomerulab.apps.annotation.store.study import has_study
    from glomerulab.apps.annotation.web.server import serve as serve_site
    from glomerulab.apps.annotation.web.site import Site
    from glomerulab.apps.annotation.web.slide_cache import SlideCache
    from glomerulab.cohort.manifest import read_manifest
    from glomerulab.errors import ConfigError

    images = None if manifest is None else read_manifest(manifest)
    shelf = SlideCache(slides)
    with open_store(db, create=images is not None) as store:
        if images is None and not has_study(store):
            raise ConfigError("holds no study yet; give its images with --manifest", where=db)
        serve_site(
            Site(store, shelf, manifest=images),
            host=host,
            port=port,
            tell=typer.echo,
            proxies=proxy or (),
        )
