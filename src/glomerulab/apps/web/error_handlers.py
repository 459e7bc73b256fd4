"""Exception handlers shared by the web programs."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPMethod, HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from glomerulab.errors import GlomerulabError
from glomerulab.runtime.messages import problem_text

__all__ = ["UNEXPECTED", "install_error_handlers"]

log = logging.getLogger(__name__)

MAX_PROBLEMS = 5
MAX_PATH_LENGTH = 80
UNEXPECTED = "an unexpected error occurred; the server's log has the details"

UNREADABLE = "the body is not of the type that its header Content-Type states; check both"

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
    known_error : callable
        Handles a `GlomerulabError`.
    respond : callable
        Builds the response to any other error.
    unexpected : str, optional
        Message of an unexpected error.
    """

    def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's, of a body that is not what its header says
            return respond(request, 422, UNREADABLE)
        if error.status_code == 405:
            allowed = {"Allow": ", ".join(_methods(app, request.scope))}
            error = HTTPException(405, error.detail, {**(error.headers or {}), **allowed})
        made = respond(request, error.status_code, _http_text(request, error))
        made.headers.update(error.headers or {})
        return made

    def broken(request: Request, error: Exception) -> Response:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return respond(request, 500, unexpected)

    def invalid(request: Request, error: RequestValidationError) -> Response:
        if any(one["loc"][0] == "path" for one in error.errors()):
            problems = validation_problems(error)
            return respond(request, 404, f"there is no {_path(request)}: {problems}")
        return respond(request, 422, validation_problems(error))

    handlers: dict[type[Exception], Callable[..., Response]] = {
        GlomerulabError: known_error,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: broken,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods of all routes of an address; Starlette names those of the first."""
    return [
        method.value
        for method in HTTPMethod
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


def validation_problems(error: RequestValidationError) -> str:
    """Return the problems of an invalid request in one line."""
    found = error.errors()
    # pydantic counts the valid entries of a list alone, and takes the others for missing.
    inner = {one["loc"][:end] for one in found for end in range(len(one["loc"]))}
    told = [one for one in found if one["type"] != "too_short" or one["loc"] not in inner]
    return "; ".join(_problem(one) for one in told[:MAX_PROBLEMS])


def _problem(problem: Mapping[str, Any]) -> str:
    origin, *place = problem["loc"]
    if problem["type"] == "json_invalid":
        reason = str(problem["ctx"]["error"])
        at = f" at character {place[0]}" if place else ""
        return f"the body is not valid JSON: {reason[:1].lower()}{reason[1:]}{at}"
    text = problem_text(problem, place=place, whole=f"the {origin}", table="a JSON object")
    if not place and isinstance(problem.get("input"), bytes):
        return f"{text}; send it with the header Content-Type: application/json"
    return text


def _http_text(request: Request, error: HTTPException) -> str:
    """Return the message of an error; Starlette's own are phrases such as "Not Found"."""
    if error.detail != HTTPStatus(error.status_code).phrase:
        return str(error.detail)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        return f"{_path(request)} takes {allowed}, not {request.method[:MAX_PATH_LENGTH]}"
    if error.status_code == 404:
        return f"there is no {_path(request)} on this server; check the address"
    return f"the server refused the request: {error.detail}"


def _path(request: Request) -> str:
    path = request.url.path
    return path if len(path) <= MAX_PATH_LENGTH else f"{path[:MAX_PATH_LENGTH]}..."
