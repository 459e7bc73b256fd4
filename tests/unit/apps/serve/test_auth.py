import asyncio

import pytest
from starlette.testclient import TestClient

from glomerulab.apps.serve.auth import OPEN_PATHS, AuthMiddleware, KeyRing, add_key
from glomerulab.apps.serve.errors import install_error_handlers
from glomerulab.apps.serve.settings import Limits
from tests.support.served_models import served


async def call(app, path: str, *, chunks=(b"",), headers=(), address="1.2.3.4", hold=None):
    """Send one request by hand; give status and headers."""
    waiting, sent = list(chunks), []

    async def receive():
        if not waiting:
            await asyncio.sleep(3600)
        one = waiting.pop(0)
        if isinstance(one, float):
            await asyncio.sleep(one)
            one = waiting.pop(0)
        return {"type": "http.request", "body": one, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "method": "POST",
        "headers": list(headers),
        "client": (address, 1),
        "query_string": b"",
        "scheme": "http",
        "server": ("x", 80),
        "root_path": "",
        "raw_path": path.encode(),
        "http_version": "1.1",
    }
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


class Slow:
    """Responds when it is released."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.clients = []

    async def __call__(self, scope, receive, send):
        self.clients.append(scope["state"]["client"])
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("path", ["/v1/crops", "/v1/model", "/v1/jobs", "/metrics", "/nowhere"])
def test_requests_without_a_key_get_no_information(keyed, path):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}):
        answer = keyed.client().request("GET", path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert keyed.client("anna").get(path).status_code != 401


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_health_metrics_and_page_need_no_key(keyed, path):
    assert keyed.client().get(path).status_code == 200


def test_a_revoked_key_and_a_broken_key_file_are_rejected(tmp_path):
    from fastapi import FastAPI

    path = tmp_path / "keys.json"
    key = add_key(path, "anna")
    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(AuthMiddleware, keys=KeyRing(path), limits=Limits())
    client = TestClient(app, headers={"Authorization": f"Bearer {key}"})
    assert client.get("/x").status_code == 404
    path.write_text("nonsense")
    assert client.get("/x").status_code == 503


def test_one_client_cannot_use_the_full_capacity():
    async def run():
        slow = Slow()
        app = AuthMiddleware(
            slow, keys=None, limits=Limits(requests_per_client=3, crops_waiting=50)
        )
        first = [asyncio.create_task(call(app, "/v1/crops")) for _ in range(3)]
        await asyncio.sleep(0)
        status, headers = await call(app, "/v1/crops")
        other = asyncio.create_task(call(app, "/v1/crops", address="5.6.7.8"))
        await asyncio.sleep(0)
        slow.go.set()
        assert [one[0] for one in await asyncio.gather(*first, other)] == [200] * 4
        assert (status, headers[b"retry-after"]) == (429, b"1")
        assert (await call(app, "/v1/crops"))[0] == 200
        assert set(slow.clients) == {"at 1.2.3.4", "at 5.6.7.8"}

    asyncio.run(run())


def test_excess_crops_are_rejected_and_other_requests_are_not():
    async def run():
        slow = Slow()
        app = AuthMiddleware(
            slow, keys=None, limits=Limits(requests_per_client=50, crops_waiting=2)
        )
        first = [asyncio.create_task(call(app, "/v1/crops")) for _ in range(2)]
        await asyncio.sleep(0)
        status, headers = await call(app, "/v1/crops", address="5.6.7.8")
        model = asyncio.create_task(call(app, "/v1/model"))
        await asyncio.sleep(0)
        slow.go.set()
        assert (status, headers[b"retry-after"]) == (503, b"2")
        assert (await model)[0] == 200
        await asyncio.gather(*first)

    asyncio.run(run())


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
def test_every_limit_is_a_positive_number(name):
    assert getattr(Limits(), name) > 0


def test_a_server_enforces_its_limits(trained, tmp_path):
    with served(trained, tmp_path, upload_bytes=1000) as one:
        answer = one.client().post("/v1/crops", content=bytes(1001))
        assert answer.status_code == 413
        assert one.client().post("/v1/crops", content=bytes(1000)).status_code == 422
