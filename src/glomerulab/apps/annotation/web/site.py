"""State shared by all requests of one running server."""

import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from anyio import CapacityLimiter
from itsdangerous import Signer, TimestampSigner

from glomerulab.apps.annotation.records import Study
from glomerulab.apps.annotation.store.accounts import signing_key
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.study import has_study, read_study
from glomerulab.apps.annotation.web.login_limits import MAX_CHECKS_AT_ONCE, LoginLimits
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.apps.annotation.web.work_process import Report
from glomerulab.apps.web.server import LOCAL_HOSTS
from glomerulab.cohort.manifest import Manifest
from glomerulab.errors import StoreBusyError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """The settings of a server."""

    hosts: frozenset[str] = LOCAL_HOSTS
    """Allowed host names; empty means any."""
    session_lifetime: timedelta = timedelta(hours=12)
    crop_mpp: float = 0.5
    """Micrometres per pixel of the crops that boxes become."""
    crop_margin: float = 0.1
    """Added on every side of a box, as a share of its longer side."""


class Imports:
    """The import that is in progress, one at a time, so that it leaves the others their share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress: dict[str, tuple[int, int]] = {}

    @contextmanager
    def running(self, login: str) -> Iterator[Report]:
        """Yield what takes the progress of the import of an account."""
        if not self._lock.acquire(blocking=False):
            raise StoreBusyError("another file is being imported; try again when it is done")
        try:
            yield partial(self._report, login)
        finally:
            self._progress.pop(login, None)
            self._lock.release()

    def progress(self, login: str) -> tuple[int, int]:
        """Return how many regions of how many are saved; 0 of 0 if no import is in progress."""
        return self._progress.get(login, (0, 0))

    def _report(self, login: str, n_done: int, n_regions: int) -> None:
        self._progress[login] = (n_done, n_regions)


@dataclass(frozen=True)
class Site:
    """The store, slides, limits and settings that a route needs beside the request."""

    store: Store
    slide_cache: SlideCache
    settings: SiteSettings = SiteSettings()
    manifest: Manifest | None = None
    """The images of a new study; needed only until there is one."""
    setup_token: str | None = None
    """Printed once on the terminal; its holder may create the owner's account and the study."""
    login_limits: LoginLimits = field(default_factory=LoginLimits)
    imports: Imports = field(default_factory=Imports)
    login_queue: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(2 * MAX_CHECKS_AT_ONCE)
    )

    @cached_property
    def _key(self) -> bytes:
        return signing_key(self.store)

    @cached_property
    def session_signer(self) -> TimestampSigner:
        """Signs the session cookie, so that a forged one never reaches the database."""
        return TimestampSigner(self._key, salt="glomerulab-session")

    @cached_property
    def csrf_signer(self) -> Signer:
        """Signs the token that a write must bring beside the cookie."""
        return Signer(self._key, salt="glomerulab-csrf")

    def mask_digest(self, assignment_id: int, digest: str) -> str:
        """Mask the digest of an item's image, or recover it from the masked digest.

        A repeated image has another mask, so that addresses and responses do not reveal repeats.

        Parameters
        ----------
        digest : str
            SHA-256 as hex, or its masked form.

        Returns
        -------
        str
            64 hexadecimal digits: the digest XOR a keyed hash of the item.
        """
        pad = hmac.digest(self._key, f"image of item {assignment_id}".encode(), "sha256")
        pairs = zip(bytes.fromhex(digest), pad, strict=True)
        return bytes(one ^ other for one, other in pairs).hex()

    def needs_setup(self) -> bool:
        """Return whether there is no study yet."""
        return not has_study(self.store)

    def study(self) -> Study:
        """Return the study with its present settings."""
        return read_study(self.store)

    @property
    def crops_folder(self) -> Path:
        """The folder for the crops of boxes, beside the images of the study."""
        return self.study().image_root / "drawn"
