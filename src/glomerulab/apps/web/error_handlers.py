"""Exception handlers shared by the web programs."""

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from glomerulab.errors import GlomerulabError

__all__ = ["UNEXPECTED", "install_error_handlers"]

log = logging.getLogger(__name__)

MAX_PROBLEMS = 5
UNEXPECTED = "an unexpected error occurred; the server's log has the details"

Respond = Callable[[Request, int, str], Response]
"""Builds a response (JSON or a page) from a status and a message."""


def install_error_handlers(
    app: FastAPI,
    *,
    known_error: Callable[[Request, GlomerulabError], Response],
    respond: Respond,
    unexpected: str = UNEXPECTED,
) -> None:
    """Install an application's exception handlers; no trace is ever sent.

    Parameters
    ----------
    foreseen : callable
        Handles a `GlomerulabError`.
    respond : callable
        Builds the response to any other error.
    unforeseen : str, optional
        Message of an unexpected error.
    """

    def http(request: Request, error: HTTPException) -> Response:
        made = respond(request, error.status_code, str(error.detail))
        made.headers.update(error.headers or {})
        return made

    def broken(request: Request, error: Exception) -> Response:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return respond(request, 500, unexpected)

    def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(request, 422, validation_problems(error))

    handlers: dict[type[Exception], Callable[..., Response]] = {
        GlomerulabError: known_error,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: broken,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def validation_problems(error: RequestValidationError) -> str:
    """Return the problems of an invalid request in one line."""
    problems = [
        f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()
    ]
    return "; ".join(problems[:MAX_PROBLEMS])
