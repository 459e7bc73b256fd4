"""How much one server takes on, and for how long it waits."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused, in numbers; beyond them a request gets 413, 408, 429 or 503."""

    upload_bytes: int = 20 * 1024 * 1024
    """Of one crop."""
    crop_pixels: int = 16_000_000
    """Claimed by an image's header: beyond it nothing is decoded."""
    body_bytes: int = 64 * 1024
    """Of every other request."""
    crops_waiting: int = 64
    """Crops that are being answered at once, of all clients together."""
    requests_per_client: int = 32
    """At once; so that one client cannot take all there is."""
    jobs_waiting: int = 100
    """Jobs that have not ended, of all clients together."""
    jobs_per_client: int = 20
    body_s: float = 30.0
    """For a request's body to arrive."""
    answer_s: float = 60.0
    """For one crop, once it has arrived."""
    job_s: float = 6 * 3600.0
    """For one job."""
    job_starts: int = 3
    """How often a job is begun before it is given up: it may be what ends the server."""
