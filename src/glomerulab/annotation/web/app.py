"""The application: middleware, routes and answers to errors put together around one site."""

from pathlib import Path

from fastapi import Depends, FastAPI
from starlette.responses import FileResponse, Response

from glomerulab.annotation.web import (
    routes_agreement,
    routes_entry,
    routes_export,
    routes_label,
    routes_review,
    routes_slides,
    routes_study,
)
from glomerulab.annotation.web.access import protected_write
from glomerulab.annotation.web.faults import install_faults
from glomerulab.annotation.web.pages import STATIC
from glomerulab.annotation.web.security import Shield
from glomerulab.annotation.web.site import Site
from glomerulab.errors import UnknownRecordError

__all__ = ["create_app"]

STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
ROUTERS = (
    routes_entry,
    routes_export,
    routes_label,
    routes_slides,
    routes_study,
    routes_review,
    routes_agreement,
)


def create_app(site: Site) -> FastAPI:
    """Make the application of one study.

    Parameters
    ----------
    site : Site
        Its store stays the caller's to close.

    Returns
    -------
    FastAPI
        Without pages about its own interface: those load scripts from elsewhere.
    """
    app = FastAPI(
        title="glomerulab annotation (research use only)",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.site = site
    app.add_middleware(Shield, hosts=site.settings.hosts, is_upload=_is_upload)
    install_faults(app)
    for module in ROUTERS:
        app.include_router(module.router, dependencies=[Depends(protected_write)])
    app.get("/static/{name:path}", include_in_schema=False)(_static)
    return app


def _static(name: str) -> Response:
    """Give a file of the package by a name that is on its list."""  # noqa: DOC501
    known = _static_files()
    if name not in known:
        raise UnknownRecordError("there is no such file")
    path = known[name]
    # The address holds the file's digest, so that it may be kept.
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return FileResponse(path, media_type=STATIC_TYPES[path.suffix], headers=headers)


def _static_files() -> dict[str, Path]:
    root = Path(str(STATIC))
    return {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.suffix in STATIC_TYPES
    }


def _is_upload(path: str) -> bool:
    return path.startswith("/slides/") and path.endswith("/import")
