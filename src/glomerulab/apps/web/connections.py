"""Limits of connections, which hold before a request is complete and whoever sends it.

A connection that waits for its client (for a request, a body, or the reading of a response) is
closed after a time, and gives its place to a new one where all places are taken.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Collection, Sequence

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["CLIENT_WAIT_S", "MAX_CONNECTIONS", "address_key", "in_time", "limited_protocol"]

CLIENT_WAIT_S = 30.0
"""Longest wait for the headers of a request, for its body, or for a client to read a response."""
MAX_CONNECTIONS = 500
MAX_PER_ADDRESS = 200
"""Of one address that is not a proxy's; a hospital's readers may share one."""
N_PREFIX_BITS = 64
"""Of an IPv6 address: who has one has the whole network."""
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Retry-After: 2\r\nConnection: close\r\nContent-Length: 51\r\n\r\n"
    b"the server has no place for this request; try again"
)


def address_key(host: str) -> str:
    """Return what the addresses of one client have in common, for limits.

    Examples
    --------
    >>> address_key("2001:db8::1") == address_key("2001:DB8:0:0:ffff::2")
    True
    >>> address_key("::ffff:192.0.2.7")
    '192.0.2.7'
    """
    try:
        address = ipaddress.ip_address(host.strip().partition("%")[0])
    except ValueError:
        return host.strip().casefold()[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, N_PREFIX_BITS), strict=False))


def in_time(receive: Receive, seconds: float) -> Receive:
    """Limit the time for a body to arrive."""
    deadline = asyncio.get_running_loop().time() + seconds
    is_complete = False

    async def timed() -> Message:
        nonlocal is_complete
        if is_complete:  # only a disconnect can follow
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(
                408, f"the body did not arrive within {seconds:g} s; send it again"
            ) from error
        is_complete = not message.get("more_body", False)
        return message

    return timed


def limited_protocol(proxies: Sequence[str] = ()) -> type[H11Protocol]:
    """Return the protocol of a server; a proxy may open as many connections as there are."""
    networks = [ipaddress.ip_network(one) for one in proxies]

    class OfThisServer(_LimitedProtocol):
        trusted = networks

    return OfThisServer


class _LimitedProtocol(H11Protocol):
    """HTTP/1.1 whose connections wait for their clients for a limited time."""

    trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    since = 0.0
    address = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.address = address_key(self.client[0]) if self.client else ""
        self._await_request()
        others = [one for one in self.connections if isinstance(one, _LimitedProtocol)]
        own = [one for one in others if one.address == self.address]
        if len(own) > MAX_PER_ADDRESS and not self._is_proxy():
            self._take_place_of(own)
        elif len(others) > MAX_CONNECTIONS:
            self._take_place_of(others)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_idle() and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Stop writing until the client has read; without this, it could hold its place for good.

        Called by the transport, as `resume_writing` is.
        """
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _await_reading(self) -> None:
        """Close the connection unless the client reads at least something in time."""
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(CLIENT_WAIT_S, self._end_if_unread, left)

    def _end_if_unread(self, left: int) -> None:
        if self.transport.get_write_buffer_size() >= left:
            self.transport.abort()
        else:
            self._await_reading()

    def _await_request(self) -> None:
        self.since = self.loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(CLIENT_WAIT_S, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._is_idle() and self._reading is None:
            self.transport.abort()

    def _is_idle(self) -> bool:
        """Whether no request is in progress."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        return cycle is None or cycle.response_complete

    def waits(self) -> bool:
        """Whether the next move is the client's."""
        return self._is_idle() or self._reading is not None or self.cycle.more_body

    def _is_proxy(self) -> bool:
        if self.client is None:
            return False
        host = ipaddress.ip_address(self.client[0].partition("%")[0])
        return any(host in one for one in self.trusted)

    def _take_place_of(self, others: Collection["_LimitedProtocol"]) -> None:
        """Close the connection that waits longest, of the address that has most; else this one."""
        n_of = Counter(one.address for one in others)
        waiting = [one for one in others if one is not self and one.waits()]
        if waiting:
            last = min(waiting, key=lambda one: (-n_of[one.address], one.since))
            last.transport.abort()
            self.connections.discard(last)  # it is told only later that it is closed
            return
        self.transport.write(REFUSAL)
        self.transport.close()
        self.connections.discard(self)

    def _cancel_timers(self) -> None:
        for timer in (self._timer, self._reading):
            if timer is not None:
                timer.cancel()
