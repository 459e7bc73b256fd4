"""Limit failed log-ins per account and address.

The counts are kept in memory: a restart clears them, and an attacker cannot restart the server.
Passwords never come here.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from glomerulab.apps.annotation.store.accounts import login_key
from glomerulab.apps.web.connections import address_key

WINDOW_MIN = 5
MAX_FAILURES = {"pair": 5, "login": 20, "address": 40}
"""Within the window: of one login from one address, of one login, and from one address."""
MAX_CHECKS_AT_ONCE = 2
"""A password check takes 64 MiB by design; many at once could exhaust the memory."""


class TooManyLoginsError(Exception):
    """The log-in failed too often; `wait_s` is the time until the next try is accepted."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many failed log-ins; try again in {wait_s} s")
        self.wait_s = wait_s


class LoginLimits:
    """Count failed log-ins; safe to use from several threads."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._limits = {
            kind: RateLimitItemPerMinute(n, WINDOW_MIN, namespace=kind)
            for kind, n in MAX_FAILURES.items()
        }
        self._checks = threading.BoundedSemaphore(MAX_CHECKS_AT_ONCE)

    @contextmanager
    def attempt(self, login: str, address: str) -> Iterator[None]:
        """Let one password check through, or raise `TooManyLoginsError`.

        The limit is five failures of a login from one address within five minutes, and more of a
        login from all addresses, and from an address for all logins.
        """
        self._raise_if_blocked(login, address)
        with self._checks:
            # Again: of many tries at once, those before this one in the queue may have failed.
            self._raise_if_blocked(login, address)
            yield

    def record_failure(self, login: str, address: str) -> None:
        """Count a failure."""
        for kind, key in _keys(login, address).items():
            self._limiter.hit(self._limits[kind], key)

    def reset(self, login: str, address: str) -> None:
        """Forget the failures of this login from this address after a success."""
        self._limiter.clear(self._limits["pair"], _keys(login, address)["pair"])

    def _raise_if_blocked(self, login: str, address: str) -> None:
        now = time.time()
        waits = []
        for kind, key in _keys(login, address).items():
            window = self._limiter.get_window_stats(self._limits[kind], key)
            if window.remaining == 0:
                waits.append(window.reset_time - now)
        if waits and max(waits) > 0:
            raise TooManyLoginsError(int(max(waits)) + 1)


def _keys(login: str, address: str) -> dict[str, str]:
    name, place = login_key(login)[:64], address_key(address)
    return {"pair": f"{name} {place}", "login": name, "address": place}
