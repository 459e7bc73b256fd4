"""What all requests of one running server share: its store, slides, limits and settings."""

import hmac
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from itsdangerous import Signer, TimestampSigner

from glomerulab.apps.annotation.records import Study
from glomerulab.apps.annotation.store.database import Store
from glomerulab.apps.annotation.store.sessions import signing_key
from glomerulab.apps.annotation.store.study import has_study, read_study
from glomerulab.apps.annotation.web.login_limits import LoginLimits
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.apps.web.server import LOCAL_HOSTS
from glomerulab.cohort.manifest import Manifest

__all__ = ["Site", "SiteSettings"]


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """How a server is run."""

    hosts: frozenset[str] = LOCAL_HOSTS
    """Names it answers to; empty means any."""
    session_lifetime: timedelta = timedelta(hours=12)
    crop_mpp: float = 0.5
    """Micrometres per pixel of the crops that boxes become."""
    crop_margin: float = 0.1
    """Added on every side of a box, as a share of its longer side."""


@dataclass(frozen=True)
class Site:
    """Everything a route needs beside the request."""

    store: Store
    shelf: SlideCache
    settings: SiteSettings = SiteSettings()
    manifest: Manifest | None = None
    """What a new study is made of; needed only until there is one."""
    setup_token: str | None = None
    """Shown once on the terminal: who has it may make the owner's account and the study."""
    limits: LoginLimits = field(default_factory=LoginLimits)

    @cached_property
    def _key(self) -> bytes:
        return signing_key(self.store)

    @cached_property
    def session_signer(self) -> TimestampSigner:
        """Signs the cookie, so that a forged one never reaches the database."""
        return TimestampSigner(self._key, salt="glomerulab-session")

    @cached_property
    def csrf_signer(self) -> Signer:
        """Signs the token that a write must bring beside the cookie."""
        return Signer(self._key, salt="glomerulab-csrf")

    def image_mark(self, assignment_id: int, digest: str) -> str:
        """Turn the digest of an item's image into a mark of the item, and the mark back.

        A repeated image has another mark, so that addresses and answers do not tell it from any
        other.

        Parameters
        ----------
        assignment_id : int
        digest : str
            SHA-256 as hex, or its mark.

        Returns
        -------
        str
            64 hexadecimal digits: the digest XOR a keyed hash of the item.
        """
        pad = hmac.digest(self._key, f"image of item {assignment_id}".encode(), "sha256")
        pairs = zip(bytes.fromhex(digest), pad, strict=True)
        return bytes(one ^ other for one, other in pairs).hex()

    def needs_setup(self) -> bool:
        """Tell whether there is no study yet."""
        return not has_study(self.store)

    def study(self) -> Study:
        """Return the study as it is now."""
        return read_study(self.store)

    @property
    def crops_folder(self) -> Path:
        """Where boxes become image files, beside the images of the study."""
        return self.study().image_root / "drawn"
