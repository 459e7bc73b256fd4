import socket

import pytest

from glomerulab.apps.web.server import is_local, listen
from glomerulab.errors import OutputError


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
