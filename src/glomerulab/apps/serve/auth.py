"""API keys and concurrency limits, checked before a request's body is read."""

import datetime as dt
import hashlib
import hmac
import re
import secrets
import threading
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from glomerulab.apps.serve.errors import BusyError, NoKeyError, error_response
from glomerulab.apps.serve.settings import Limits
from glomerulab.errors import ConfigError, GlomerulabError
from glomerulab.runtime.files import atomic_write, read_utf8
from glomerulab.runtime.names import plain_name

__all__ = ["add_key", "revoke_key"]

CROPS_PATH = "/v1/crops"
OPEN_PATHS = frozenset(
    {"/", "/slides", "/model", "/programs", "/health", "/ready", "/openapi.json"}
)
"""Paths without a key, besides the page's static files."""
SCHEME = "bearer "

NAME = re.compile(r"[\w][\w .@-]{0,63}")
PREFIX = "glk_"
"""Prefix by which secret scanners recognise a key."""


class ApiKey(BaseModel):
    """Stored part of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Client name; jobs belong to it."""
    sha256: str
    created: str
    """UTC, ISO 8601."""


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a key file."""
    make_one = "make a key with `glomerulab api-key NAME --keys FILE`"
    text = read_utf8(path, "key file", error=ConfigError, way_out=make_one)
    try:
        return _KeyFile.model_validate_json(text).keys
    except ValidationError as error:
        raise ConfigError(
            "this is not a key file; make one with `glomerulab api-key NAME --keys FILE`",
            where=str(path),
        ) from error


def add_key(path: Path, name: str) -> str:
    """Create a key for a client.

    Parameters
    ----------
    path : Path
        Created if missing, readable by its owner only.
    name : str
        Letters, digits, blanks and ``. _ @ -``.

    Returns
    -------
    str
        The key; the file holds only its hash.

    Raises
    ------
    ConfigError
        If the name is invalid or has a key already.
    """
    if not NAME.fullmatch(name.strip()):
        raise ConfigError(
            f"{name[:80]!r} is not a valid name; use up to 64 letters, digits, blanks, . _ @ -"
        )
    keys, name = read_keys(path) if path.exists() else (), plain_name(name)
    taken = next((key.name for key in keys if key.name.casefold() == name.casefold()), None)
    if taken is not None:
        raise ConfigError(f"there is a key for {taken!r} already; revoke it first", where=str(path))
    key = PREFIX + secrets.token_urlsafe(32)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    _write(path, (*keys, ApiKey(name=name, sha256=_hash(key), created=now)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Revoke a client's key, effective at the next request.

    Raises
    ------
    ConfigError
        If there is no such key.
    """
    keys, name = read_keys(path), plain_name(name)
    kept = tuple(key for key in keys if plain_name(key.name) != name)
    if len(kept) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise ConfigError(f"there is no key for {name!r}; known names: {known}", where=str(path))
    _write(path, kept)


class KeyRing:
    """Keys of a running server, reloaded whenever their file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._keys: tuple[ApiKey, ...] = ()
        self._version: tuple[int, ...] | None = None
        self._current()

    def __len__(self) -> int:
        return len(self._current())

    def find(self, given: str) -> str | None:
        """Return the client of a key, None if the key is unknown; compares in constant time."""
        sent = _hash(given)
        found = None
        for key in self._current():
            if hmac.compare_digest(key.sha256, sent):
                found = key.name
        return found

    def _current(self) -> tuple[ApiKey, ...]:
        with self._lock:
            version = _version(self.path)
            if version != self._version or version is None:
                self._keys = read_keys(self.path)
                self._version = version
            return self._keys


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:  # reading the file reports the reason
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        content = _KeyFile(keys=keys).model_dump_json(indent=2) + "\n"
        temporary.write_text(content, encoding="utf-8")


class AuthMiddleware:
    """Identify the client of each request, or refuse it."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, limits: Limits) -> None:
        self.app = app
        self.keys = keys
        self.limits = limits
        # Only the event loop changes these, so they need no lock.
        self._of_client: Counter[str] = Counter()
        self._n_crops = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            client = self._client(scope)
            self._refuse_too_many(client, scope)
        except GlomerulabError as error:
            await error_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["client"] = client
        is_crop = scope["path"] == CROPS_PATH
        self._of_client[client] += 1
        self._n_crops += is_crop
        try:
            await self.app(scope, receive, send)
        finally:
            self._n_crops -= is_crop
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]

    def _client(self, scope: Scope) -> str:
        """Return the client's name."""
        if self.keys is None:
            address = scope.get("client")
            return f"at {address[0]}" if address else "at this computer"
        given = Headers(scope=scope).get("authorization", "")
        if not given.lower().startswith(SCHEME):
            raise NoKeyError(
                "this server needs an API key; send the header Authorization: Bearer KEY"
            )
        try:
            name = self.keys.find(given[len(SCHEME) :].strip())
        except ConfigError as error:
            # Cached keys may have been revoked: refuse all.
            raise BusyError(
                "the server cannot read its key file; try again later", status=503, wait_s=30
            ) from error
        if name is None:
            raise NoKeyError(
                "this API key is not known; it may have been revoked, ask the server's "
                "operator for a new one"
            )
        return name

    def _refuse_too_many(self, client: str, scope: Scope) -> None:
        if self._of_client[client] >= self.limits.requests_per_client:
            raise BusyError(
                f"{self.limits.requests_per_client} of your requests are in progress; wait "
                "for one to end",
                status=429,
                wait_s=1,
            )
        if scope["path"] == CROPS_PATH and self._n_crops >= self.limits.crops_waiting:
            raise BusyError(f"{self._n_crops} crops are waiting; try again", status=503, wait_s=2)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith("/static/")
