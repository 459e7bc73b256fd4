"""Run the annotation program, and say on the terminal what that means."""

import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace

from glomerulab.apps.annotation.web.app import create_app
from glomerulab.apps.annotation.web.site import Site
from glomerulab.apps.web.server import LOCAL_HOSTS, address_of, is_local, listen, run_server

__all__ = ["announce", "serve"]


def serve(
    site: Site,
    *,
    host: str,
    port: int,
    tell: Callable[[str], None],
    proxies: Sequence[str] = (),
) -> None:
    """Answer requests until interrupted.

    Parameters
    ----------
    site : Site
    host : str
        Address to bind to.
    port : int
        0 for any free one.
    tell : callable
        Gets the lines for the terminal.
    proxies : sequence of str, default empty
        Addresses whose word on who asks is taken.

    Raises
    ------
    ConfigError
        If a proxy is no address.
    OutputError
        If the address is taken or not this machine's.
    """
    if site.needs_setup():
        site = replace(site, setup_token=secrets.token_urlsafe(18))
    hosts = LOCAL_HOSTS if is_local(host) else frozenset()
    site = replace(site, settings=replace(site.settings, hosts=hosts))
    with closing(listen(host, port)) as listener:
        for line in announce(site, host=host, port=listener.getsockname()[1]):
            tell(line)
        run_server(create_app(site), listener, proxies=proxies)


def announce(site: Site, *, host: str, port: int) -> list[str]:
    """Return what the terminal says when the server starts.

    Parameters
    ----------
    site : Site
    host : str
    port : int

    Returns
    -------
    list of str
    """
    address = address_of(host, port)
    lines = [f"Annotation program at {address} (research use only). Stop it with Ctrl+C."]
    if not is_local(host):
        lines += [
            f"WARNING: {host} can be reached from the network, not from this computer alone.",
            "  Everyone must log in, but passwords and images travel unencrypted: use it only in a",
            "  network you trust, or behind a proxy that speaks HTTPS.",
        ]
    if site.setup_token is not None:
        lines += [
            "No study yet. Open this address to make the owner's account and the study:",
            f"  {address}/setup?token={site.setup_token}",
        ]
    return lines
