"""Settings and limits of the server."""

from dataclasses import dataclass, field
from pathlib import Path

from glomerulab.apps.serve.files import SlideFolder
from glomerulab.i18n.catalogue import Language
from glomerulab.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits beyond which a request is refused with 413, 408, 429 or 503."""

    upload_bytes: int = 20 * 1024 * 1024
    """Size of one crop."""
    crop_pixels: int = 16_000_000
    """Pixels according to the image's header; a larger image is not decoded."""
    body_bytes: int = 64 * 1024
    """Size of any other request."""
    crops_waiting: int = 64
    """Crops being processed at once, of all clients."""
    requests_per_client: int = 32
    """Concurrent requests of one client."""
    jobs_waiting: int = 100
    """Jobs that have not ended, of all clients."""
    jobs_per_client: int = 20
    body_s: float = 30.0
    """Time for a request's body to arrive."""
    answer_s: float = 60.0
    """Time for one crop, once it has arrived."""
    job_s: float = 6 * 3600.0
    """Time for one job."""
    job_starts: int = 3
    """Starts after which a job is given up, since it may be what crashes the server."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings that all jobs share."""

    folder: Path
    """Where job folders are kept."""
    run: Path
    slides: SlideFolder
    n_workers: int = 1
    fingerprint: str | None = None
    """Of the loaded model; a job refuses another."""
    detector: Path | None = None
    """Segmenter of jobs that ask to `detect`."""
    detector_sha256: str | None = None
    """Of its weights; a job refuses others."""
    references: Path | None = None
    """Folder with a picture of each label, which reports show."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of `glomerulab serve`."""

    run: Path
    keys: Path | None = None
    slides: Path | None = None
    """Folder whose slides clients may name; None: crops only."""
    jobs: Path | None = None
    """Where jobs are kept; required with `slides`."""
    detector: Path | None = None
    """Segmenter that outlines glomeruli on slides without regions."""
    inbox: Path | None = None
    """Folder whose slides become jobs by themselves; `slides`, or within it."""
    language: Language = "en"
    """Of the reports of the inbox."""
    taxonomy: Taxonomy | None = None
    """Labels that clients expect; a model with other labels is refused."""
    n_workers: int = 1
    """Processes of a job that cut and normalise."""
    names: tuple[str, ...] = ()
    """Host names that a proxy passes on."""
    proxies: tuple[str, ...] = ()
    """Proxy addresses whose forwarded headers are trusted."""
    limits: Limits = field(default_factory=Limits)
    references: Path | None = None
    """Folder with a picture of each label, which pages and reports show."""
