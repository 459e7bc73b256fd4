"""Errors as answers, for every program here: which there are, and what is wrong in words."""

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from glomerulab.errors import GlomerulabError

__all__ = ["UNEXPECTED", "Answer", "install_error_handlers", "validation_problems"]

log = logging.getLogger(__name__)

MAX_PROBLEMS = 5
UNEXPECTED = "something unforeseen went wrong; the server's log says what"

Answer = Callable[[Request, int, str], Response]
"""Makes an answer of a status and words, such as JSON or a page."""


def install_error_handlers(
    app: FastAPI,
    *,
    foreseen: Callable[[Request, GlomerulabError], Response],
    answer: Answer,
    unforeseen: str = UNEXPECTED,
) -> None:
    """Give an application its answers to errors; no trace ever goes out.

    Parameters
    ----------
    foreseen : callable
        Answers an error of the program's own.
    answer : callable
        Answers every other one.
    unforeseen : str, optional
        What is said of a fault of the program; the log has the rest.
    """

    def http(request: Request, error: HTTPException) -> Response:
        made = answer(request, error.status_code, str(error.detail))
        made.headers.update(error.headers or {})
        return made

    def broken(request: Request, error: Exception) -> Response:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
        return answer(request, 500, unforeseen)

    def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, 422, validation_problems(error))

    handlers: dict[type[Exception], Callable[..., Response]] = {
        GlomerulabError: foreseen,
        RequestValidationError: invalid,
        HTTPException: http,
        Exception: broken,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def validation_problems(error: RequestValidationError) -> str:
    """Say in one line what does not fit.

    Returns
    -------
    str
        The first few problems by place. What was sent is not repeated: it may be no JSON (NaN) or
        another's script.
    """
    problems = [
        f"{'.'.join(str(part) for part in one['loc'][1:])}: {one['msg']}" for one in error.errors()
    ]
    return "; ".join(problems[:MAX_PROBLEMS])
