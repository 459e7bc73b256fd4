from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from glomerulab.apps.web.error_handlers import install_error_handlers, validation_problems
from glomerulab.errors import OutputError


def test_the_first_problems_are_named_by_place_and_what_was_sent_is_not_repeated():
    problems = [
        {"loc": ("body", "slides", n), "msg": "is odd", "input": "<script>"} for n in range(9)
    ]
    message = validation_problems(RequestValidationError(problems))
    assert message.startswith("slides.0: is odd; slides.1: is odd")
    assert message.count("is odd") == 5
    assert "<script>" not in message


def test_every_kind_of_error_becomes_an_answer_without_a_trace():
    app = FastAPI()
    install_error_handlers(
        app,
        known_error=lambda _request, error: PlainTextResponse(error.message, 507),
        respond=lambda _request, status, message: PlainTextResponse(message, status),
        unexpected="something broke",
    )
    errors = {
        "disk": OutputError("disk full", where="/secret"),
        "busy": HTTPException(429, "later", headers={"Retry-After": "3"}),
        "bug": ZeroDivisionError("secret"),
    }

    def fail(kind: str, number: int = 0) -> None:
        raise errors[kind]

    app.get("/{kind}")(fail)
    client = TestClient(app, raise_server_exceptions=False)
    assert (client.get("/disk").status_code, client.get("/disk").text) == (507, "disk full")
    assert client.get("/busy").headers["Retry-After"] == "3"
    assert (client.get("/bug").status_code, client.get("/bug").text) == (500, "something broke")
    assert client.get("/bug?number=x").status_code == 422
