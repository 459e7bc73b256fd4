"""Errors of the server and their responses: JSON with a message, never a trace or a server path."""

import logging

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from glomerulab.apps.web import error_handlers
from glomerulab.apps.web.security import NOTICE
from glomerulab.errors import GlomerulabError, NotAllowedError, OutputError, UnknownRecordError


class NoKeyError(GlomerulabError):
    """The request has no API key, or an unknown one."""


class JobStateError(GlomerulabError):
    """The job's state does not allow this."""


class BusyError(GlomerulabError):
    """The server is at one of its limits."""

    def __init__(self, message: str, *, status: int, wait_s: int) -> None:
        super().__init__(message)
        self.status = status
        self.wait_s = wait_s


log = logging.getLogger(__name__)

STATUSES: tuple[tuple[type[GlomerulabError], int], ...] = (
    (NoKeyError, 401),
    (NotAllowedError, 403),
    (UnknownRecordError, 404),
    (JobStateError, 409),
    (OutputError, 507),
    (GlomerulabError, 422),
)


def install_error_handlers(app: FastAPI) -> None:
    """Install the handlers of this server."""
    error_handlers.install_error_handlers(
        app,
        known_error=lambda request, error: error_response(error, request),
        respond=lambda _request, status, message: _respond(status, message),
    )


def error_response(error: GlomerulabError, request: Request | None = None) -> JSONResponse:
    """Build the response to an error."""
    if isinstance(error, BusyError):
        return _respond(error.status, error.message, {"Retry-After": str(error.wait_s)})
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    if status >= 500:
        log.error("%s: %s", request and request.url.path, error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return _respond(status, error.message, headers)


def _respond(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": message, "research_use_only": NOTICE}, status, headers)
