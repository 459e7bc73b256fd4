"""Sockets and the uvicorn server.

Forwarded headers are trusted only from named proxies, since clients are counted by address and
anybody can send the headers.
"""

import errno
import ipaddress
import logging
import socket
import sys
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from glomerulab.apps.web.connections import MAX_CONNECTIONS, limited_protocol
from glomerulab.errors import ConfigError, OutputError

__all__ = ["LOCAL_HOSTS", "address_of", "check_proxies", "is_local", "listen", "run_server"]

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Host names of a server on localhost."""
OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)


def is_local(host: str) -> bool:
    """Return whether an address is reachable from this computer only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(host: str, port: int) -> str:
    """Return the URL of a server.

    Examples
    --------
    >>> address_of("::1", 8000)
    'http://[::1]:8000'
    """
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket.

    Parameters
    ----------
    host : str
        Address to bind to.
    port : int
        0 for any free one.

    Raises
    ------
    OutputError
        If the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With an explicit protocol asyncio disables Nagle's algorithm.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        at_fault = "--port" if error.errno in OF_THE_PORT else "--host"
        raise OutputError(
            f"the server cannot listen on this address: {reason}; give another {at_fault}",
            where=f"{host}:{port}",
        ) from error
    return listener


LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
SHUTDOWN_S = 5
ACCEPTED_AT_ONCE = 100
"""Fewer than one address may open: nobody loses a place before their request was looked at."""
SWITCH_S = 0.0005
"""How long a thread keeps Python's lock while others wait. A short request passes through several
threads; with Python's 5 ms it took 400 ms while another one listed 30,000 boxes."""


def run_server(app: ASGIApp, listener: socket.socket, *, proxies: Sequence[str] = ()) -> None:
    """Serve an application until interrupted.

    Parameters
    ----------
    listener : socket
        The caller closes it.
    proxies : sequence of str, default empty
        As `server_config` takes them.

    Raises
    ------
    ConfigError
        If a proxy is not an address.
    """
    config = server_config(app, proxies=proxies)
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    sys.setswitchinterval(SWITCH_S)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:  # the way to stop it, after which nothing is left to do
        sys.exit(130)


def check_proxies(proxies: Sequence[str]) -> None:
    """Raise ConfigError if a proxy is not an address, before anything is loaded."""
    for one in proxies:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise ConfigError(
                f"{one!r} is not an address; --proxy takes an address such as 127.0.0.1 or a "
                "network such as 10.0.0.0/24"
            ) from error


def server_config(app: ASGIApp, *, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """Return the uvicorn configuration of an application."""
    check_proxies(proxies)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        http=limited_protocol(proxies),
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        # Of requests whose clients have left, too; open connections are limited by the protocol.
        limit_concurrency=2 * MAX_CONNECTIONS,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
