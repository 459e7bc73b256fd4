import asyncio
import socket

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from glomerulab.apps.web.server import is_local, listen, server_config
from glomerulab.errors import ConfigError, OutputError


async def _who(scope, receive, send) -> None:
    request = Request(scope)
    client = {"address": request.client.host, "scheme": request.url.scheme}
    await JSONResponse(client)(scope, receive, send)


def _client_of(*proxies: str, sender: str = "127.0.0.1") -> dict[str, str]:
    """Send a request with forged forwarding headers; return what the application sees."""
    config = server_config(_who, proxies=proxies)
    config.load()

    async def ask() -> dict[str, str]:
        transport = httpx.ASGITransport(config.loaded_app, client=(sender, 4321))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
            return (await client.get("/", headers=headers)).json()

    return asyncio.run(ask())


def test_a_local_client_cannot_forge_another_address(monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # of another program's settings
    assert _client_of() == {"address": "127.0.0.1", "scheme": "http"}


def test_only_configured_proxies_are_trusted():
    client = {"address": "192.0.2.7", "scheme": "https"}
    assert _client_of("127.0.0.1") == client
    assert _client_of("10.0.0.0/8", sender="10.1.2.3") == client
    assert _client_of("10.0.0.5", sender="127.0.0.1")["address"] == "127.0.0.1"


@pytest.mark.parametrize("name", ["*", "proxy.example", "10.0.0.1/8", ""])
def test_an_invalid_address_is_named_with_the_way_out(name):
    with pytest.raises(ConfigError, match="--proxy"):
        server_config(_who, proxies=[name])


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.1.2.3", True),
        ("0.0.0.0", False),
        ("192.168.1.4", False),
        ("::", False),
        ("pathology.example", False),
    ],
)
def test_loopback_addresses_are_recognised(host, local):
    assert is_local(host) is local


def test_a_free_port_is_taken_and_a_taken_one_is_named():
    with listen("127.0.0.1", 0) as taken:
        host, port = taken.getsockname()
        with pytest.raises(OutputError, match="--port") as caught:
            listen(host, port)
    assert caught.value.where == f"127.0.0.1:{port}"
    with socket.socket() as again:
        again.bind(("127.0.0.1", 0))


def test_an_address_of_another_machine_is_named():
    with pytest.raises(OutputError, match="--host"):
        listen("192.0.2.1", 0)
