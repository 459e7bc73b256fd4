"""How often a log-in may fail before it has to wait.

Kept in memory: a restart forgets it, and an attacker cannot restart the server. It must not know
of passwords.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["LoginLimits", "TooManyTriesError"]

WINDOW_S = 300.0
MAX_FAILURES = {"pair": 5, "login": 20, "address": 40}
"""Within the window: of one login from one address, of one login, and from one address."""
MAX_KEYS = 20_000
MAX_CHECKS_AT_ONCE = 2
"""A password check takes 64 MiB by design; many at once would be a way to fill the memory."""

Key = tuple[str, str]


class TooManyTriesError(Exception):
    """The log-in has failed too often.

    Parameters
    ----------
    wait_s : int
        Seconds until the next try is looked at.
    """

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"too many failed log-ins; try again in {wait_s} s")
        self.wait_s = wait_s


class LoginLimits:
    """Counts failed log-ins; safe to use from several threads.

    Parameters
    ----------
    clock : callable, default time.monotonic
        Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[Key, deque[float]] = {}
        self._lock = threading.Lock()
        self._checks = threading.BoundedSemaphore(MAX_CHECKS_AT_ONCE)

    @contextmanager
    def attempt(self, login: str, address: str) -> Iterator[None]:
        """Let one password check through, when its time has come.

        Parameters
        ----------
        login, address : str
            Who, and from where.

        Yields
        ------
        None

        Raises
        ------
        TooManyTriesError
            If there were too many failures within the last five minutes.
        """
        keys = self._keys(login, address)
        self._refuse_if_blocked(keys)
        with self._checks:
            # Again: of many tries at once, those before this one in the queue may have failed.
            self._refuse_if_blocked(keys)
            yield

    def failed(self, login: str, address: str) -> None:
        """Count a failure."""
        now = self._clock()
        with self._lock:
            if len(self._failures) >= MAX_KEYS:
                self._forget_old(now)
            for key in self._keys(login, address):
                times = self._failures.setdefault(key, deque(maxlen=MAX_FAILURES[key[0]]))
                times.append(now)

    def succeeded(self, login: str, address: str) -> None:
        """Forget the failures of this login from this address."""
        with self._lock:
            self._failures.pop(self._keys(login, address)[0], None)

    def _refuse_if_blocked(self, keys: tuple[Key, ...]) -> None:
        now = self._clock()
        with self._lock:
            waits = [
                times[0] + WINDOW_S - now
                for key in keys
                if len(times := self._failures.get(key, deque())) >= MAX_FAILURES[key[0]]
            ]
        if waits and max(waits) > 0:
            raise TooManyTriesError(int(max(waits)) + 1)

    def _forget_old(self, now: float) -> None:
        kept = {key: t for key, t in self._failures.items() if t[-1] + WINDOW_S > now}
        # Still too many: somebody tries very many names. The newest count.
        self._failures = dict(list(kept.items())[-MAX_KEYS // 2 :])

    @staticmethod
    def _keys(login: str, address: str) -> tuple[Key, ...]:
        name = login.casefold()[:64]
        return ("pair", f"{name} {address}"), ("login", name), ("address", address)
