"""API keys: random words of which the server keeps no more than a hash.

A key is 256 random bits, so that a plain SHA-256 of it can be neither guessed nor reversed; a slow
hash, as passwords need, would only slow every request.
"""

import datetime as dt
import hashlib
import hmac
import re
import secrets
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from glomerulab.errors import ConfigError
from glomerulab.runtime.files import atomic_write

__all__ = ["ApiKey", "KeyRing", "add_key", "read_keys", "revoke_key"]

NAME = re.compile(r"[\w][\w .@-]{0,63}")
PREFIX = "glk_"
"""Lets scanners for leaked secrets know one."""


class ApiKey(BaseModel):
    """What is kept of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of the client that has it; jobs belong to this name."""
    sha256: str
    created: str
    """UTC, ISO 8601."""


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[ApiKey, ...] = ()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a key file.

    Raises
    ------
    ConfigError
        If it is missing or malformed.
    """
    try:
        return _KeyFile.model_validate_json(path.read_text(encoding="utf-8")).keys
    except FileNotFoundError as error:
        raise ConfigError(
            "no such key file; make a key with `glomerulab api-key NAME --keys FILE`",
            where=str(path),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the key file cannot be read", where=str(path)) from error
    except ValidationError as error:
        raise ConfigError("is no key file of `glomerulab api-key`", where=str(path)) from error


def add_key(path: Path, name: str) -> str:
    """Make a key for a client.

    Parameters
    ----------
    path : Path
        Made if need be, readable by its owner alone.
    name : str
        Letters, digits, blanks and ``. _ @ -``.

    Returns
    -------
    str
        The key. It is shown once and kept nowhere.

    Raises
    ------
    ConfigError
        If the name is taken or no name.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} is no name: up to 64 letters, digits, blanks, . _ @ -")
    keys = read_keys(path) if path.exists() else ()
    if any(key.name == name for key in keys):
        raise ConfigError(f"there is a key for {name!r} already; revoke it first", where=str(path))
    key = PREFIX + secrets.token_urlsafe(32)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    _write(path, (*keys, ApiKey(name=name, sha256=_hash(key), created=now)))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a client's key back; a running server notices at the next request.

    Raises
    ------
    ConfigError
        If there is no such key.
    """
    keys = read_keys(path)
    kept = tuple(key for key in keys if key.name != name)
    if len(kept) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise ConfigError(f"no key for {name!r}; there are: {known}", where=str(path))
    _write(path, kept)


class KeyRing:
    """The keys of a running server, read again whenever their file changes.

    Raises
    ------
    ConfigError
        If the file is missing or malformed; later on, `find` raises it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._keys: tuple[ApiKey, ...] = ()
        self._version: tuple[int, ...] | None = None
        self._current()

    def __len__(self) -> int:
        return len(self._current())

    def find(self, given: str) -> str | None:
        """Return whose key this is, in a time that does not tell how much of it was right.

        Returns
        -------
        str or None
            The client's name; None if it is nobody's.
        """
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
    except OSError:  # reading it says why
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _write(path: Path, keys: tuple[ApiKey, ...]) -> None:
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        content = _KeyFile(keys=keys).model_dump_json(indent=2) + "\n"
        temporary.write_text(content, encoding="utf-8")
