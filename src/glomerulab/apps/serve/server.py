"""Build and run the server of a model."""

from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.types import Scope
from threadpoolctl import threadpool_limits

from glomerulab.apps.serve import routes_crops, routes_jobs, routes_pages, routes_service
from glomerulab.apps.serve.auth import CROPS_PATH, AuthMiddleware, KeyRing
from glomerulab.apps.serve.errors import install_error_handlers
from glomerulab.apps.serve.files import SlideFolder
from glomerulab.apps.serve.inbox import Inbox
from glomerulab.apps.serve.jobs import Jobs
from glomerulab.apps.serve.metrics import Metrics, MetricsMiddleware
from glomerulab.apps.serve.schemas import DESCRIPTION, describe_keys
from glomerulab.apps.serve.service import Service, load_served_model
from glomerulab.apps.serve.settings import JobSettings, ServeSettings
from glomerulab.apps.web.security import SecurityMiddleware
from glomerulab.apps.web.server import (
    LOCAL_HOSTS,
    address_of,
    check_proxies,
    is_local,
    listen,
    run_server,
)
from glomerulab.errors import ConfigError
from glomerulab.i18n.catalogue import Language
from glomerulab.inference.detector import open_detector
from glomerulab.reports.references import read_references

__all__ = ["serve"]


def open_service(settings: ServeSettings) -> Service:
    """Load the model and the jobs of an earlier server."""
    slides = None
    if settings.inbox is not None and settings.detector is None:
        raise ConfigError("--inbox needs a segmenter that outlines glomeruli; give --detector RUN")
    root = settings.slides or settings.inbox
    if root is not None:
        option = "--inbox" if settings.slides is None else "--slides"
        if not root.is_dir():
            raise ConfigError(f"{option} must be a folder", where=str(root))
        if settings.jobs is None:
            raise ConfigError(f"{option} needs a folder for jobs; give --jobs FOLDER")
        slides = SlideFolder(root)
    metrics = Metrics()
    model = load_served_model(settings.run, metrics, taxonomy=settings.taxonomy)
    references = {}
    if settings.references is not None:
        references = read_references(settings.references, model.card.taxonomy.label_ids)
    jobs = detector = inbox = None
    if settings.detector is not None:
        if slides is None:
            raise ConfigError("--detector is for slides; give --slides FOLDER and --jobs FOLDER")
        detector = open_detector(settings.detector).facts
    if slides is not None and settings.jobs is not None:
        kept = JobSettings(
            settings.jobs,
            settings.run.resolve(),
            slides,
            settings.n_workers,
            model.fingerprint,
            None if settings.detector is None else settings.detector.resolve(),
            None if detector is None else detector.weights_sha256,
            None if settings.references is None else settings.references.resolve(),
        )
        jobs = Jobs(kept, settings.limits)
        if settings.inbox is not None:
            inbox = _open_inbox(settings.inbox, jobs, settings.language)
    return Service(
        model,
        metrics,
        settings.limits,
        needs_key=settings.keys is not None,
        slides=slides,
        jobs=jobs,
        detector=detector,
        references=references,
        inbox=inbox,
    )


def _open_inbox(folder: Path, jobs: Jobs, language: Language) -> Inbox:
    try:
        return Inbox(folder, jobs, language=language)
    except BaseException:
        jobs.close()
        raise


def serve(settings: ServeSettings, *, host: str, port: int, echo: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    host : str
        Address to bind to.
    port : int
        0 for any free one.
    echo : callable
        Called with each line for the terminal.

    Raises
    ------
    ConfigError
        If others could reach the server without a key, or a proxy is not an address.
    GlomerulabError
        If the model cannot be served, or the address is taken.
    """
    if settings.keys is None and not is_local(host):
        raise ConfigError(
            f"{host} can be reached from the network; give API keys with --keys FILE "
            "(`glomerulab api-key NAME --keys FILE` makes one)"
        )
    check_proxies(settings.proxies)
    keys = None if settings.keys is None else KeyRing(settings.keys)
    # BLAS threads would take the cores from the network.
    threadpool_limits(limits=1, user_api="blas")
    # Bind first: a taken port fails before the model is loaded.
    with closing(listen(host, port)) as listener, closing(open_service(settings)) as service:
        hosts = frozenset(settings.names) | (LOCAL_HOSTS if is_local(host) else frozenset())
        app = create_app(service, keys=keys, hosts=hosts)
        for line in announce(settings, service, host=host, port=listener.getsockname()[1]):
            echo(line)
        run_server(app, listener, proxies=settings.proxies)


def announce(settings: ServeSettings, service: Service, *, host: str, port: int) -> list[str]:
    """Return the lines printed at the start."""
    facts, address = service.model.facts, address_of(host, port)
    labels = ", ".join(label.id for label in facts.labels)
    model = f"{facts.model} ({labels}) of the run folder {facts.run}"
    lines = [
        f"{model}, at {address} (research use only).",
        f"Page: {address}/  Description for programs: {address}/openapi.json. Stop it with Ctrl+C.",
    ]
    if service.jobs is not None:
        counts = service.jobs.counts()
        waiting = counts["queued"] + counts["running"]
        root = settings.slides or settings.inbox
        lines.append(f"Slides below {root}; {waiting} earlier jobs continue.")
    if service.inbox is not None:
        lines.append(
            f"Slides put into {service.inbox.folder} become jobs; their results are put into "
            f"{service.inbox.results}."
        )
    if not is_local(host):
        lines += [
            f"warning: {host} can be reached from the network, and keys and images are sent",
            "  unencrypted: use an HTTPS proxy, or only a network you trust.",
        ]
    elif settings.keys is None:
        lines.append("No keys: every user of this computer may send requests.")
    return lines


def create_app(
    service: Service, *, keys: KeyRing | None = None, hosts: frozenset[str] = frozenset()
) -> FastAPI:
    """Build the application of one model."""
    app = FastAPI(
        title="glomerulab (research use only)",
        description=DESCRIPTION,
        version=version("glomerulab"),
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    limits = service.limits

    def limit_of(scope: Scope) -> int:
        return limits.upload_bytes if scope["path"] == CROPS_PATH else limits.body_bytes

    # The last middleware added sees a request first.
    app.add_middleware(AuthMiddleware, keys=keys, limits=limits)
    app.add_middleware(
        SecurityMiddleware,
        hosts=hosts,
        limit_of=limit_of,
        host_hint="start the server with --name HOST to allow it",
        body_s=limits.body_s,
    )
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    install_error_handlers(app)
    for router in (
        routes_service.router,
        routes_crops.router,
        routes_jobs.slides_router,
        routes_jobs.router,
        routes_pages.router,
    ):
        app.include_router(router)
    if keys is not None:
        describe_keys(app)
    return app
