"""The application of one study: middleware, routes, error handlers; and running it."""

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Scope

from glomerulab.apps.annotation.records import Annotation, DrawnRegion, SaveConflictError
from glomerulab.apps.annotation.web import (
    routes_adjudicator,
    routes_annotator,
    routes_entry,
    routes_owner,
    routes_review,
)
from glomerulab.apps.annotation.web.access import (
    NotLoggedInError,
    StaleTokenError,
    check_csrf_token,
    signed_token,
)
from glomerulab.apps.annotation.web.answers import describe_answers
from glomerulab.apps.annotation.web.login_limits import TooManyLoginsError
from glomerulab.apps.annotation.web.pages import ASSETS, localized_message, render_page
from glomerulab.apps.annotation.web.schemas import annotation_json, region_json
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.error_handlers import UNEXPECTED, install_error_handlers
from glomerulab.apps.web.security import SecurityMiddleware
from glomerulab.apps.web.server import LOCAL_HOSTS, address_of, is_local, listen, run_server
from glomerulab.errors import (
    GlomerulabError,
    NotAllowedError,
    OutputError,
    StoreBusyError,
    StoreError,
    UnknownRecordError,
)

log = logging.getLogger(__name__)

PAGES = (routes_entry, routes_annotator, routes_review, routes_adjudicator, routes_owner)
MAX_BODY_BYTES = 64 * 1024
MAX_SHAPE_BYTES = 512 * 1024  # an outline of 10,000 points
MAX_UPLOAD_BYTES = 20 * 1024 * 1024  # region files are the only uploads

INTERNAL_ERROR = f"{UNEXPECTED}. Nothing that was saved is lost."
STATUSES: tuple[tuple[type[GlomerulabError], int], ...] = (
    (NotAllowedError, 403),
    (UnknownRecordError, 404),
    (SaveConflictError, 409),
    (StoreBusyError, 503),
    (StoreError, 507),
    (OutputError, 507),
    (GlomerulabError, 422),
)


def serve(
    site: Site,
    *,
    host: str,
    port: int,
    echo: Callable[[str], None],
    proxies: Sequence[str] = (),
) -> None:
    """Serve the application until interrupted.

    Parameters
    ----------
    port : int
        0 for any free one.
    echo : callable
        Prints a line on the terminal.
    proxies : sequence of str, default empty
        Addresses of proxies whose forwarding headers are trusted.

    Raises
    ------
    ConfigError
        If a proxy is not an address.
    OutputError
        If the address is in use or not this computer's.
    """
    if site.needs_setup():
        site = replace(site, setup_token=secrets.token_urlsafe(18))
    hosts = LOCAL_HOSTS if is_local(host) else frozenset()
    site = replace(site, settings=replace(site.settings, hosts=hosts))
    with closing(listen(host, port)) as listener:
        for line in start_message(site, host=host, port=listener.getsockname()[1]):
            echo(line)
        run_server(create_app(site), listener, proxies=proxies)


def start_message(site: Site, *, host: str, port: int) -> list[str]:
    """Return the lines that the terminal prints when the server starts."""
    address = address_of(host, port)
    lines = [f"Annotation program at {address} (research use only). Stop it with Ctrl+C."]
    if not is_local(host):
        lines += [
            f"warning: {host} can be reached from the network, not from this computer alone.",
            "  Everyone must log in, but passwords and images travel unencrypted: use it only in a",
            "  network you trust, or behind a proxy with HTTPS.",
        ]
    if site.setup_token is not None:
        lines += [
            "No study yet. Open this address to create the owner's account and the study:",
            f"  {address}/setup?token={site.setup_token}",
        ]
    return lines


def create_app(site: Site) -> FastAPI:
    """Create the application of one study; the caller closes the store of the site.

    There are no pages about the API: FastAPI's load scripts from elsewhere.
    """
    app = FastAPI(
        title="glomerulab annotation (research use only)",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.site = site
    app.add_middleware(
        SecurityMiddleware, hosts=site.settings.hosts, limit_of=partial(_max_body_bytes, site)
    )
    _add_error_handlers(app)
    for module in PAGES:
        app.include_router(module.router, dependencies=[Depends(check_csrf_token)])
    app.get("/static/{name:path}", include_in_schema=False)(_static_file)
    describe_answers(app)
    return app


def status_of(error: GlomerulabError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def _static_file(name: str) -> Response:
    response = ASSETS.response(name)
    if response is None:
        raise UnknownRecordError(f"there is no file {name!r}")
    return response


def _max_body_bytes(site: Site, scope: Scope) -> int:
    """Return the largest body: a region file's or an outline's only after a log-in."""
    path = scope["path"]
    is_shape = path.startswith("/api/slides/") and path.endswith("/regions")
    is_upload = path.startswith("/slides/") and path.endswith("/import")
    if (is_upload or is_shape) and signed_token(site, Request(scope).cookies) is not None:
        return MAX_UPLOAD_BYTES if is_upload else MAX_SHAPE_BYTES
    return MAX_BODY_BYTES


def _add_error_handlers(app: FastAPI) -> None:
    # Only the message of an error is sent: `where` may hold a path of the server.
    install_error_handlers(
        app, known_error=_known_error, respond=_error_response, unexpected=INTERNAL_ERROR
    )
    handlers: dict[type[Exception], Callable[..., Response]] = {
        NotLoggedInError: _not_logged_in,
        TooManyLoginsError: _too_many_logins,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _not_logged_in(request: Request, _error: NotLoggedInError) -> Response:
    if _wants_json(request):
        content = {"detail": "you are not logged in; log in first", "reason": "logged-out"}
        return JSONResponse(content, 401)
    target = "/login"
    if request.method == "GET" and request.url.path != "/":
        target = f"/login?next={request.url.path}"
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": "/login"})
    return RedirectResponse(target, 303)


def _too_many_logins(request: Request, error: TooManyLoginsError) -> Response:
    response = _error_response(request, 429, str(error))
    response.headers["Retry-After"] = str(error.wait_s)
    return response


def _known_error(request: Request, error: GlomerulabError) -> Response:
    status = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    extra: dict[str, object] = {}
    if isinstance(error, SaveConflictError):
        extra["current"] = _current_json(error)
    if isinstance(error, StaleTokenError):
        extra["reason"] = "out-of-date"
    response = _error_response(request, status, error.message, **extra)
    if status == 503:
        response.headers["Retry-After"] = "2"
    return response


def _current_json(error: SaveConflictError) -> dict[str, Any] | None:
    if isinstance(error.current, Annotation):
        return annotation_json(error.current)
    if isinstance(error.current, DrawnRegion):
        return region_json(error.current, may_edit=True)
    return None


def _error_response(request: Request, status: int, message: str, **extra: object) -> Response:
    """Return JSON for a script, a fragment for htmx, and a page otherwise."""
    message = localized_message(request, message)
    if _wants_json(request):
        return JSONResponse({"detail": message, **extra}, status)
    is_htmx = request.headers.get("hx-request")
    template = "error_fragment.html.j2" if is_htmx else "error.html.j2"
    return render_page(request, template, status=status, message=message)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/static/"))
