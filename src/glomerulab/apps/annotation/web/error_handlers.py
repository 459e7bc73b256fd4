"""Errors as answers: what went wrong in words a person can act on, and never a trace.

A page gets a page, a script gets JSON, htmx gets a fragment for the page's alert. Paths of the
server stay on the server: only the message of an error goes out.
"""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from glomerulab.apps.annotation.records import Annotation, DrawnRegion, SaveConflictError
from glomerulab.apps.annotation.web.access import NotLoggedInError, OutOfDateError
from glomerulab.apps.annotation.web.login_limits import TooManyTriesError
from glomerulab.apps.annotation.web.pages import render_page
from glomerulab.apps.annotation.web.schemas import judgement_json, region_json
from glomerulab.apps.web import error_handlers as faults
from glomerulab.errors import (
    GlomerulabError,
    NotAllowedError,
    OutputError,
    StoreBusyError,
    StoreError,
    UnknownRecordError,
)

__all__ = ["install_error_handlers", "status_of"]

log = logging.getLogger(__name__)

UNEXPECTED = f"{faults.UNEXPECTED}. Nothing that was saved is lost."

STATUSES: tuple[tuple[type[GlomerulabError], int], ...] = (
    (NotAllowedError, 403),
    (UnknownRecordError, 404),
    (SaveConflictError, 409),
    (StoreBusyError, 503),
    (StoreError, 507),
    (OutputError, 507),
    (GlomerulabError, 422),
)


def install_error_handlers(app: FastAPI) -> None:
    """Give an application its answers to errors.

    Parameters
    ----------
    app : FastAPI
    """
    faults.install_error_handlers(app, foreseen=_foreseen, answer=_answer, unforeseen=UNEXPECTED)
    handlers: dict[type[Exception], Callable[..., Response]] = {
        NotLoggedInError: _not_logged_in,
        TooManyTriesError: _too_many_tries,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def status_of(error: GlomerulabError) -> int:
    """Return the HTTP status that fits an error."""
    return next(status for kind, status in STATUSES if isinstance(error, kind))


def _not_logged_in(request: Request, _error: NotLoggedInError) -> Response:
    if _wants_json(request):
        return JSONResponse({"detail": "log in first", "reason": "logged-out"}, 401)
    target = "/login"
    if request.method == "GET" and request.url.path != "/":
        target = f"/login?next={request.url.path}"
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": "/login"})
    return RedirectResponse(target, 303)


def _too_many_tries(request: Request, error: TooManyTriesError) -> Response:
    answer = _answer(request, 429, str(error))
    answer.headers["Retry-After"] = str(error.wait_s)
    return answer


def _foreseen(request: Request, error: GlomerulabError) -> Response:
    status = status_of(error)
    if status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error)
    further: dict[str, object] = {}
    if isinstance(error, SaveConflictError):
        further["current"] = _current(error)
    if isinstance(error, OutOfDateError):
        further["reason"] = "out-of-date"
    answer = _answer(request, status, error.message, **further)
    if status == 503:
        answer.headers["Retry-After"] = "2"
    return answer


def _current(error: SaveConflictError) -> dict[str, Any] | None:
    if isinstance(error.current, Annotation):
        return judgement_json(error.current)
    if isinstance(error.current, DrawnRegion):
        return region_json(error.current, may_edit=True)
    return None


def _answer(request: Request, status: int, message: str, **further: object) -> Response:
    if _wants_json(request):
        return JSONResponse({"detail": message, **further}, status)
    if request.headers.get("hx-request"):
        return render_page(request, "fault.html.j2", status=status, message=message)
    return render_page(request, "error.html.j2", status=status, message=message)


def _wants_json(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/static/"))
