import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from glomerulab.apps.web.security import NOTICE, NOTICE_HEADER, SecurityMiddleware, content_policy


async def _size(request: Request) -> JSONResponse:
    return JSONResponse({"n_bytes": len(await request.body())})


@pytest.fixture
def client() -> TestClient:
    """A small program that may be sent 1000 bytes, or 5000 to /large."""
    app = Starlette(routes=[Route("/{name}", _size, methods=["GET", "POST"])])
    app.add_middleware(
        SecurityMiddleware,
        hosts=frozenset({"testserver"}),
        limit_of=lambda scope: 5000 if scope["path"] == "/large" else 1000,
    )
    return TestClient(app)


def test_every_response_carries_the_headers_and_the_notice(client):
    for answer in (client.get("/here"), client.get("/no/where"), client.post("/x", content=b"")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers[NOTICE_HEADER] == NOTICE
        assert answer.headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_path_has_its_own_limit_for_declared_and_received_bytes(client):
    def chunks():
        for _ in range(20):
            yield b"x" * 100

    assert client.post("/small", content=b"x" * 1000).json() == {"n_bytes": 1000}
    assert client.post("/small", content=b"x" * 1001).status_code == 413
    assert client.post("/small", content=chunks()).status_code == 413
    assert client.post("/large", content=chunks()).json() == {"n_bytes": 2000}


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_write_from_another_site_is_refused(client, headers):
    assert client.post("/small", content=b"", headers=headers).status_code == 403
    assert client.get("/small", headers=headers).status_code == 200


def test_an_unknown_host_header_is_rejected_by_the_server(client):
    assert client.get("/small", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Host": "evil.example"}, b"", 421),
        ({"Host": "["}, b"", 421),
        ({"Host": "a]b"}, b"", 421),
        ({"Origin": "http://["}, b"", 403),
        ({"Origin": "http://evil.example"}, b"", 403),
        ({"Sec-Fetch-Site": "cross-site"}, b"", 403),
        ({}, b"x" * 1001, 413),
    ],
)
def test_an_error_response_carries_the_notice_in_its_headers(client, headers, content, status):
    answer = client.post("/small", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["research_use_only"] == NOTICE


def test_nothing_may_compile_except_on_the_page_that_draws_boxes():
    assert "unsafe" not in content_policy()
    assert "unsafe-eval" in content_policy(with_boxes=True)
    script = content_policy(with_boxes=True).split("script-src")[1].split(";")[0]
    assert "unsafe-inline" not in script


def test_only_a_page_that_allows_it_may_show_blob_images():
    assert "blob:" not in content_policy()
    assert "img-src 'self' blob:" in content_policy(with_blobs=True)
