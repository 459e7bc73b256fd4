"""Where a server listens, and whether others than this computer's users can reach it."""

import errno
import ipaddress
import socket

from glomerulab.errors import OutputError

__all__ = ["LOCAL_HOSTS", "address_of", "is_local", "listen"]

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of a server that this computer alone can reach."""
OF_THE_PORT = (errno.EADDRINUSE, errno.EACCES)


def is_local(host: str) -> bool:
    """Tell whether an address can be reached from this computer alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(host: str, port: int) -> str:
    """Return what a browser is given.

    Examples
    --------
    >>> address_of("::1", 8000)
    'http://[::1]:8000'
    """
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to answer on.

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
    # The protocol is named: only then does asyncio send small answers without waiting (no Nagle).
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
            f"cannot listen there: {reason}; give another {at_fault}", where=f"{host}:{port}"
        ) from error
    return listener
