"""Answer requests until interrupted: what every program here asks of its server.

No proxy header is believed unless the proxy is named: with one that anybody can send, whoever is
counted by address could be anyone.
"""

import ipaddress
import logging
import socket
from collections.abc import Sequence

import uvicorn
from starlette.types import ASGIApp

from glomerulab.errors import ConfigError

__all__ = ["answer", "refuse_bad_proxies", "server_config"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"
SHUTDOWN_S = 5
MAX_CONNECTIONS = 500


def answer(app: ASGIApp, listener: socket.socket, *, proxies: Sequence[str] = ()) -> None:
    """Answer requests until interrupted.

    Parameters
    ----------
    listener : socket
        Stays the caller's to close.
    proxies : sequence of str, default empty
        As `server_config` takes them.

    Raises
    ------
    ConfigError
        If a proxy is no address.
    """
    config = server_config(app, proxies=proxies)
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    uvicorn.Server(config).run(sockets=[listener])


def refuse_bad_proxies(proxies: Sequence[str]) -> None:
    """Refuse what is no address, before anything is loaded or begun.

    Parameters
    ----------
    proxies : sequence of str
        As `server_config` takes them.

    Raises
    ------
    ConfigError
        If a proxy is no address.
    """
    for one in proxies:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise ConfigError(
                f"{one!r} is no address of a proxy; --proxy takes one such as 127.0.0.1, or a "
                "network such as 10.0.0.0/24"
            ) from error


def server_config(app: ASGIApp, *, proxies: Sequence[str] = ()) -> uvicorn.Config:
    """Return how an application is run.

    Parameters
    ----------
    proxies : sequence of str, default empty
        Addresses or networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed;
        empty: nobody's, whatever the environment says.

    Raises
    ------
    ConfigError
        If a proxy is no address.
    """
    refuse_bad_proxies(proxies)
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        limit_concurrency=MAX_CONNECTIONS,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
    )
