"""A server of which the limits are small, in a thread, and clients that keep it waiting."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from glomerulab.apps.web import connections
from glomerulab.apps.web.connections import address_key
from glomerulab.apps.web.security import SecurityMiddleware
from glomerulab.apps.web.server import listen, server_config

WAIT_S = 0.4


async def _size(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def _much(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * 30_000_000)


@contextmanager
def running(*, proxies: tuple[str, ...] = ()) -> Iterator[int]:
    """Run the server; yield its port."""
    app = Starlette(
        routes=[
            Route("/size", _size, methods=["GET", "POST"]),
            Route("/much", _much, methods=["GET"]),
        ]
    )
    app.add_middleware(
        SecurityMiddleware, hosts=frozenset(), limit_of=lambda _scope: 10**6, body_s=WAIT_S
    )
    with closing(listen("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(app, proxies=proxies))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "CLIENT_WAIT_S", WAIT_S)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 10)
    with running() as one:
        yield one


def opened(port: int, content: bytes = b"", *, source: str = "127.0.0.1") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), 5, source_address=(source, 0))
    one.sendall(content)
    return one


def is_closed(one: socket.socket) -> bool:
    """Whether the server closes a connection within a few times of the wait."""
    one.settimeout(5 * WAIT_S)
    try:
        for _ in range(400):
            if not one.recv(2**20):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False


def drip(one: socket.socket, content: bytes) -> None:
    """Send something again and again, for much longer than the server waits."""
    deadline = time.monotonic() + 10 * WAIT_S
    while time.monotonic() < deadline:
        one.sendall(content)
        time.sleep(WAIT_S / 8)


HALF_OPEN = {
    "nothing": b"",
    "half a request line": b"GET /si",
    "half of the headers": b"GET /size HTTP/1.1\r\nHost: a\r\n",
}


@pytest.mark.parametrize("content", HALF_OPEN.values(), ids=HALF_OPEN)
def test_a_connection_without_a_request_is_closed_in_time(port: int, content: bytes) -> None:
    with opened(port, content) as one:
        assert is_closed(one)


def test_headers_that_never_end_are_closed_in_time_though_bytes_arrive(port: int) -> None:
    with opened(port, b"GET /size HTTP/1.1\r\n") as one, pytest.raises(ConnectionError):
        drip(one, b"X-A: b\r\n")


def test_a_second_request_that_never_ends_is_closed_in_time(port: int) -> None:
    with opened(port, b"GET /size HTTP/1.1\r\nHost: a\r\n\r\n") as one:
        assert b"200 OK" in one.recv(4096)
        one.sendall(b"GET /si")
        assert is_closed(one)


def test_a_body_that_does_not_arrive_is_refused_in_time(port: int) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
    with opened(port, head) as one:
        assert one.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_read_is_closed_in_time(port: int) -> None:
    with socket.socket() as one:
        one.connect(("127.0.0.1", port))
        one.sendall(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(3 * WAIT_S)
        assert is_closed(one)  # after what was on its way


def test_a_slow_client_that_reads_gets_everything(port: int) -> None:
    with httpx.stream("GET", f"http://127.0.0.1:{port}/much") as answer:
        n_bytes = 0
        for chunk in answer.iter_bytes(3_000_000):
            n_bytes += len(chunk)
            time.sleep(WAIT_S / 5)
    assert n_bytes == 30_000_000


@pytest.mark.parametrize("content", HALF_OPEN.values(), ids=HALF_OPEN)
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_half_open_connections_shut_nobody_out(
    monkeypatch: pytest.MonkeyPatch, content: bytes, source: str
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 10)
    held = []
    with running() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as reader:
        for _ in range(40):
            held.append(opened(port, content, source=source))
            assert reader.get("/size").text == "0"
        for one in held:
            one.close()


def test_a_proxy_may_open_as_many_connections_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 2)
    request = b"GET /size HTTP/1.1\r\nHost: a\r\n\r\n"
    for proxies, n_open in (((), 2), (("127.0.0.0/8",), 6)):
        with running(proxies=proxies) as port:
            held = [opened(port) for _ in range(6)]
            time.sleep(0.2)
            answers = 0
            for one in held:
                try:
                    one.sendall(request)
                    answers += one.recv(4096).startswith(b"HTTP/1.1 200")
                except ConnectionError:
                    continue
            assert answers == n_open
            for one in held:
                one.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8::1", "2001:DB8:0:0:ffff::2"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        (" 192.0.2.7", "192.0.2.7 "),
        ("Unknown", "unknown"),
    ],
)
def test_addresses_of_one_client_have_one_key(one: str, other: str) -> None:
    assert address_key(one) == address_key(other)


def test_neighbours_have_keys_of_their_own() -> None:
    assert len({address_key(f"192.0.2.{number}") for number in range(9)}) == 9
    assert address_key("2001:db8:0:1::1") != address_key("2001:db8:0:2::1")
