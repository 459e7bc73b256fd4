"""Who may ask, how much at once, and how slowly: decided before a request's body is read.

Plain ASGI. It knows keys and counts, and nothing of what is asked.
"""

import asyncio
from collections import Counter

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glomerulab.apps.serve.error_handlers import fault
from glomerulab.apps.serve.errors import BusyError, NoKeyError
from glomerulab.apps.serve.keys import KeyRing
from glomerulab.apps.serve.limits import Limits
from glomerulab.errors import ConfigError, GlomerulabError

__all__ = ["CROPS_PATH", "OPEN_PATHS", "AuthMiddleware"]

CROPS_PATH = "/v1/crops"
OPEN_PATHS = frozenset({"/", "/health", "/ready", "/openapi.json"})
"""Need no key, and neither do the page's files."""
SCHEME = "bearer "


class AuthMiddleware:
    """Names the client of each request, or refuses it.

    Parameters
    ----------
    keys : KeyRing or None
        None: everyone who reaches this server may ask, and is told apart by address.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, limits: Limits) -> None:
        self.app = app
        self.keys = keys
        self.limits = limits
        # Changed by the event loop alone, so that they need no lock.
        self._of_client: Counter[str] = Counter()
        self._n_crops = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            client = self._client(scope)
            self._refuse_too_many(client, scope)
        except GlomerulabError as error:
            await fault(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        is_crop = scope["path"] == CROPS_PATH
        self._of_client[client] += 1
        self._n_crops += is_crop
        try:
            await self.app(scope, _in_time(receive, self.limits.body_s), send)
        finally:
            self._n_crops -= is_crop
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    def _client(self, scope: Scope) -> str:
        """Return the name of who asks."""
        if self.keys is None:
            address = scope.get("client")
            return f"at {address[0]}" if address else "at this computer"
        given = Headers(scope=scope).get("authorization", "")
        if not given.lower().startswith(SCHEME):
            raise NoKeyError("an API key is needed: Authorization: Bearer KEY")
        try:
            name = self.keys.find(given[len(SCHEME) :].strip())
        except ConfigError as error:
            # Nobody is let in by keys that may have been revoked.
            raise BusyError("the key file cannot be read", status=503, wait_s=30) from error
        if name is None:
            raise NoKeyError("this API key is not known; it may have been revoked")
        return name

    def _refuse_too_many(self, client: str, scope: Scope) -> None:
        if self._of_client[client] >= self.limits.requests_per_client:
            raise BusyError(
                f"{self.limits.requests_per_client} requests of yours are being answered; wait "
                "for one of them",
                status=429,
                wait_s=1,
            )
        if scope["path"] == CROPS_PATH and self._n_crops >= self.limits.crops_waiting:
            raise BusyError(f"{self._n_crops} crops are waiting already", status=503, wait_s=2)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/static/")


def _in_time(receive: Receive, seconds: float) -> Receive:
    """Give a body so long to arrive: a client that sends a byte a minute holds nothing up."""
    deadline = asyncio.get_running_loop().time() + seconds
    is_whole = False

    async def timed() -> Message:
        nonlocal is_whole
        if is_whole:  # what comes now is the client going away
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            raise HTTPException(408, f"the body did not arrive within {seconds:g} s") from error
        is_whole = not message.get("more_body", False)
        return message

    return timed
