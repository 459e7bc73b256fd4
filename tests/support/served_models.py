"""A served model in this process, and the real command in a separate process."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from glomerulab.apps.serve.auth import KeyRing, add_key
from glomerulab.apps.serve.server import create_app, open_service
from glomerulab.apps.serve.settings import Limits, ServeSettings
from glomerulab.geometry import Box, Region
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.files import write_regions
from tests.support.cases import picture
from tests.support.server_process import ServerProcess, free_port


@contextmanager
def served(
    run: Path,
    folder: Path,
    *,
    with_keys: bool = False,
    with_slides: bool = False,
    detector: Path | None = None,
    **limits,
) -> Iterator["Served"]:
    """Give clients of an application around a run."""
    slides = folder / "slides" if with_slides else None
    if slides is not None:
        slides.mkdir(exist_ok=True)
    keys = folder / "keys.json" if with_keys else None
    names = {name: add_key(keys, name) for name in ("anna", "bo")} if keys else {}
    settings = ServeSettings(
        run, keys, slides, folder / "jobs" if slides else None, detector, limits=Limits(**limits)
    )
    service = open_service(settings)
    try:
        yield Served(service, KeyRing(keys) if keys else None, names)
    finally:
        service.close()


class Served:
    """An application and the keys of its clients."""

    def __init__(self, service, ring, keys) -> None:
        self.service, self.keys = service, keys
        self.app = create_app(service, keys=ring, hosts=frozenset({"testserver", "127.0.0.1"}))

    def client(self, name: str | None = None) -> TestClient:
        """Return a client, with a key if it is named."""
        client = TestClient(self.app, raise_server_exceptions=False)
        if name is not None:
            client.headers["Authorization"] = f"Bearer {self.keys[name]}"
        return client


def write_slide(
    folder: Path, name: str = "s1", *, n: int = 2, mpp: float | None = 0.5, seed: int = 2
) -> None:
    """Write a synthetic slide with n discs of tissue, and the regions around them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64 * n + 120, 900, 3), 243, dtype=np.uint8)
    regions = []
    for place in range(n):
        box = Box(100, 60 + 64 * place, 48, 48)
        label = ("normal", "cgn")[place % 2]
        pixels[box.y : box.y + 48, box.x : box.x + 48] = picture(rng, label)
        regions.append(Region.from_box(f"g{place}", box))
    if mpp is None:
        Image.fromarray(pixels).save(folder / f"{name}.png")
    else:
        write_pyramid(pixels, folder / f"{name}.tif", mpp=mpp, compression="deflate")
    write_regions(regions, folder / f"{name}.geojson")


class ServedProcess(ServerProcess):
    """``glomerulab serve`` on a free port."""

    def __init__(self, folder: Path, *options: object) -> None:
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        super().__init__("serve", "--port", port, *options, log=folder / "serve.log")

    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        try:
            return self.http.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Close the client, end the server, and return its exit code."""
        self.http.close()
        return super().stop()


def wait_for(job_id: str, http, *states: str, seconds: float = 120) -> dict:
    """Poll until a job is in one of the states."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = http.get(f"/v1/jobs/{job_id}").json()
        if job["state"] in states:
            return job
        time.sleep(0.05)
    raise AssertionError(json.dumps(job))
