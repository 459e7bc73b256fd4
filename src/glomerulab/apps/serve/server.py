"""Run the server of a model, and say on the terminal what that means."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from threadpoolctl import threadpool_limits

from glomerulab.apps.serve.app import create_app
from glomerulab.apps.serve.jobs import Jobs, JobSettings
from glomerulab.apps.serve.keys import KeyRing
from glomerulab.apps.serve.limits import Limits
from glomerulab.apps.serve.metrics import Metrics
from glomerulab.apps.serve.service import Service, load_model
from glomerulab.apps.serve.slide_folder import SlideFolder
from glomerulab.apps.web.server import answer, refuse_bad_proxies
from glomerulab.apps.web.sockets import LOCAL_HOSTS, address_of, is_local, listen
from glomerulab.errors import ConfigError
from glomerulab.taxonomy import Taxonomy

__all__ = ["ServeSettings", "announce", "open_service", "serve"]


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a server is run."""

    run: Path
    keys: Path | None = None
    slides: Path | None = None
    """The one folder whose slides may be named; None: crops only."""
    jobs: Path | None = None
    """Where jobs are kept; needed with `slides`."""
    taxonomy: Taxonomy | None = None
    """What clients count on; another model is refused."""
    n_workers: int = 1
    """Processes of a job that cut and normalise."""
    names: tuple[str, ...] = ()
    """What clients call the server by, where a proxy passes that on."""
    proxies: tuple[str, ...] = ()
    """Addresses whose word on who asks is taken."""
    limits: Limits = field(default_factory=Limits)


def open_service(settings: ServeSettings) -> Service:
    """Load the model and take up the jobs that an earlier server left.

    Returns
    -------
    Service
        To be closed.

    Raises
    ------
    ConfigError
        If the slides folder is none, or there is no place for jobs.
    GlomerulabError
        If the model cannot be served.
    """
    slides = None
    if settings.slides is not None:
        if not settings.slides.is_dir():
            raise ConfigError("is no folder; --slides takes a folder", where=str(settings.slides))
        if settings.jobs is None:
            raise ConfigError("--slides needs a folder to keep jobs in: give --jobs FOLDER")
        slides = SlideFolder(settings.slides)
    metrics = Metrics()
    model = load_model(settings.run, metrics, taxonomy=settings.taxonomy)
    jobs = None
    if slides is not None and settings.jobs is not None:
        kept = JobSettings(settings.jobs, settings.run.resolve(), slides, settings.n_workers)
        jobs = Jobs(kept, settings.limits)
    return Service(
        model,
        metrics,
        settings.limits,
        needs_key=settings.keys is not None,
        slides=slides,
        jobs=jobs,
    )


def serve(settings: ServeSettings, *, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Answer requests until interrupted.

    Parameters
    ----------
    host : str
        Address to bind to.
    port : int
        0 for any free one.
    tell : callable
        Gets the lines for the terminal.

    Raises
    ------
    ConfigError
        If others could reach the server without a key, or a proxy is no address.
    GlomerulabError
        If the model cannot be served, or the address is taken.
    """
    if settings.keys is None and not is_local(host):
        raise ConfigError(
            f"{host} can be reached from the network: give the clients' keys with --keys FILE "
            "(`glomerulab api-key NAME --keys FILE` makes one)"
        )
    refuse_bad_proxies(settings.proxies)
    keys = None if settings.keys is None else KeyRing(settings.keys)
    # Distances are small products: BLAS's own threads would take the cores from the network.
    threadpool_limits(limits=1, user_api="blas")
    # The place is taken first: a taken port is told before a model is loaded.
    with closing(listen(host, port)) as listener, closing(open_service(settings)) as service:
        hosts = frozenset(settings.names) | (LOCAL_HOSTS if is_local(host) else frozenset())
        app = create_app(service, keys=keys, hosts=hosts)
        for line in announce(settings, service, host=host, port=listener.getsockname()[1]):
            tell(line)
        answer(app, listener, proxies=settings.proxies)


def announce(settings: ServeSettings, service: Service, *, host: str, port: int) -> list[str]:
    """Return what the terminal says at the start."""
    facts, address = service.model.facts, address_of(host, port)
    labels = ", ".join(label.id for label in facts.labels)
    lines = [
        f"{facts.model} ({labels}), run {facts.run}, at {address} (research use only).",
        f"Page: {address}/  Description for programs: {address}/openapi.json. Stop it with Ctrl+C.",
    ]
    if service.jobs is not None:
        counts = service.jobs.counts()
        waiting = counts["queued"] + counts["running"]
        lines.append(f"Slides below {settings.slides}; {waiting} jobs of before go on.")
    if not is_local(host):
        lines += [
            f"WARNING: {host} can be reached from the network. Keys and images travel unencrypted:",
            "  use it behind a proxy that speaks HTTPS, or only in a network you trust.",
        ]
    elif settings.keys is None:
        lines.append("No keys: every user of this computer may ask.")
    return lines
