"""The application: middleware, routes and answers to errors put together around one site."""

from fastapi import Depends, FastAPI
from starlette.responses import Response

from glomerulab.apps.annotation.web import (
    routes_agreement,
    routes_entry,
    routes_export,
    routes_label,
    routes_review,
    routes_slides,
    routes_study,
)
from glomerulab.apps.annotation.web.access import protected_write
from glomerulab.apps.annotation.web.error_handlers import install_error_handlers
from glomerulab.apps.annotation.web.pages import ASSETS
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.security import SecurityMiddleware
from glomerulab.errors import UnknownRecordError

__all__ = ["create_app"]

MAX_BODY_BYTES = 64 * 1024
MAX_UPLOAD_BYTES = 20 * 1024 * 1024
"""Region files, the only uploads."""

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
    app.add_middleware(SecurityMiddleware, hosts=site.settings.hosts, limit_of=_limit_of)
    install_error_handlers(app)
    for module in ROUTERS:
        app.include_router(module.router, dependencies=[Depends(protected_write)])
    app.get("/static/{name:path}", include_in_schema=False)(_static)
    return app


def _static(name: str) -> Response:
    """Give a file of the package by a name that is on its list."""
    answer = ASSETS.response(name)
    if answer is None:
        raise UnknownRecordError("there is no such file")
    return answer


def _limit_of(path: str) -> int:
    is_upload = path.startswith("/slides/") and path.endswith("/import")
    return MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
