"""The application: middleware, routes and answers to errors put together around one service."""

from importlib.metadata import version

from fastapi import FastAPI

from glomerulab.apps.serve import routes_crops, routes_jobs, routes_page, routes_service
from glomerulab.apps.serve.auth import CROPS_PATH, AuthMiddleware
from glomerulab.apps.serve.error_handlers import install_faults
from glomerulab.apps.serve.keys import KeyRing
from glomerulab.apps.serve.metrics import Timed
from glomerulab.apps.serve.openapi import DESCRIPTION, describe_keys
from glomerulab.apps.serve.service import Service
from glomerulab.apps.web.security import SecurityMiddleware

__all__ = ["create_app"]


def create_app(
    service: Service, *, keys: KeyRing | None = None, hosts: frozenset[str] = frozenset()
) -> FastAPI:
    """Make the application of one model.

    Parameters
    ----------
    service : Service
        Stays the caller's to close.
    keys : KeyRing, optional
        None: whoever reaches this server may ask.
    hosts : frozenset of str, default empty
        Names this server is called by; empty means any.

    Returns
    -------
    FastAPI
        Its description is at ``/openapi.json``; without pages that load scripts from elsewhere.
    """
    app = FastAPI(
        title="glomerulab (research use only)",
        description=DESCRIPTION,
        version=version("glomerulab"),
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    limits = service.limits

    def limit_of(path: str) -> int:
        return limits.upload_bytes if path == CROPS_PATH else limits.body_bytes

    # The last one added is the first to see a request.
    app.add_middleware(AuthMiddleware, keys=keys, limits=limits)
    app.add_middleware(SecurityMiddleware, hosts=hosts, limit_of=limit_of)
    app.add_middleware(Timed, metrics=service.metrics)
    install_faults(app)
    for module in (routes_service, routes_crops, routes_jobs, routes_page):
        app.include_router(module.router)
    if keys is not None:
        describe_keys(app)
    return app
