import pytest
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from glomerulab.apps.web.error_handlers import install_error_handlers, validation_problems
from glomerulab.errors import OutputError


class Item(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    share: float = Field(default=0, ge=0, le=1)


@pytest.fixture
def client():
    app = FastAPI()
    install_error_handlers(
        app,
        known_error=lambda _request, error: PlainTextResponse(error.message, 422),
        respond=lambda _request, status, message: PlainTextResponse(message, status),
    )

    @app.post("/items")
    def add(item: Item, mpp: float = 1.0):
        return item

    @app.get("/items/{number}")
    def show(number: int):
        return number

    both = APIRouter()

    @both.get("/both")
    @both.post("/both")
    def either():
        return 1

    app.include_router(both)
    return TestClient(app, raise_server_exceptions=False)


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "parts"),
    [
        ("POST", "/items", {}, 422, ["body is missing"]),
        ("POST", "/items", {"json": {}}, 422, ["name is missing"]),
        ("POST", "/items", {"json": []}, 422, ["the body must be a JSON object", "got []"]),
        ("POST", "/items", {"json": {"name": 3}}, 422, ["name must be a text", "got 3"]),
        ("POST", "/items", {"json": {"name": "a", "share": 2}}, 422, ["share", "most 1", "got 2"]),
        ("POST", "/items", {"json": {"name": "a", "shar": 0}}, 422, ["unknown key 'shar'"]),
        ("POST", "/items", {"content": "{", "headers": JSON}, 422, ["not valid JSON", "at char"]),
        ("POST", "/items", {"content": b"\xff", "headers": JSON}, 422, ["body"]),
        ("POST", "/items", {"content": '{"name": "a"}'}, 422, ["application/json"]),
        ("POST", "/items?mpp=abc", {"json": {"name": "a"}}, 422, ["mpp", "a number", "got 'abc'"]),
        ("GET", "/items/abc", {}, 404, ["no /items/abc", "a whole number", "got 'abc'"]),
        ("GET", "/nowhere", {}, 404, ["no /nowhere"]),
        ("PUT", "/items", {}, 405, ["/items takes POST, not PUT"]),
    ],
)
def test_a_refusal_is_a_sentence_with_the_name_the_rule_and_the_value(
    client, method, path, sent, status, parts
):
    answer = client.request(method, path, **sent)
    assert answer.status_code == status
    assert [part for part in parts if part not in answer.text] == []
    assert "Input" not in answer.text
    assert "Value error" not in answer.text


def test_many_problems_and_long_values_are_cut():
    problems = [
        {"type": "int_type", "loc": ("body", "slides", n), "msg": "", "input": "x" * 1000}
        for n in range(9)
    ]
    message = validation_problems(RequestValidationError(problems))
    assert message.startswith("slides.0 must be a whole number; slides.1 must")
    assert message.count("must be") == 5
    assert "xxx" not in message


class Order(BaseModel):
    items: tuple[Item, ...] = Field(min_length=1)


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([], "items must be a list of at least 1 entries"),
        ([{"name": "a", "share": 9}], "items.0.share must be at most 1, got 9"),
    ],
)
def test_a_list_with_an_invalid_entry_is_not_called_too_short(items, told):
    with pytest.raises(ValidationError) as caught:
        Order.model_validate({"items": items})
    problems = [{**one, "loc": ("body", *one["loc"])} for one in caught.value.errors()]
    assert validation_problems(RequestValidationError(problems)) == told


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


def test_a_wrong_method_names_those_of_every_route(client):
    answer = client.request("OPTIONS", "/both")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")
