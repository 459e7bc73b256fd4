"""Prometheus metrics: requests, crops, batches, jobs, memory."""

import time
from http import HTTPMethod

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glomerulab.apps.web.security import NOTICE

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
METHODS = frozenset(HTTPMethod)


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter(
            "glomerulab_requests",
            "Requests by route and status.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "glomerulab_request_seconds",
            "Time to the end of the response.",
            ("method", "route"),
            buckets=SECONDS,
            registry=registry,
        )
        self.crops = Counter(
            "glomerulab_crops",
            "Crops predicted, by whether they were referred.",
            ("referred",),
            registry=registry,
        )
        self.batches = Histogram(
            "glomerulab_batch_size", "Crops per batch.", buckets=SIZES, registry=registry
        )
        self.in_flight = Gauge(
            "glomerulab_crops_in_flight", "Crops in progress.", registry=registry
        )
        self.jobs = Gauge("glomerulab_jobs", "Jobs by state.", ("state",), registry=registry)
        ProcessCollector(registry=registry)

    def text(self, job_counts: dict[str, int]) -> str:
        """Return all metrics, with the number of jobs by state, in Prometheus' text format."""
        for state, count in job_counts.items():
            self.jobs.labels(state).set(count)
        return f"# {NOTICE}\n{generate_latest(self.registry).decode()}"


class MetricsMiddleware:
    """Count requests by route, not by path."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        start = time.perf_counter()
        try:
            await self.app(scope, receive, watched)
        finally:
            # Clients invent paths and methods, each of which would stay in memory.
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            method = method if route != "none" else "any"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(method, route).observe(time.perf_counter() - start)
