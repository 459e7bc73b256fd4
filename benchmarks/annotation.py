"""Load, tiles and the time from a key to the next image of the annotation program.

Run: python benchmarks/annotation.py [load] [tiles] [keys]

The real command runs in a separate process, on the same cores as its clients. *load*: 50
annotators log in; each loads an item and its image and saves a label every two seconds. *tiles*:
the finest tiles of a slide over HTTP against a loop of OpenSlide's generator and
JPEG of the same quality; runs alternate. *keys*: Chromium labels by keyboard; from the key event to
the frame in which the next image is drawn.
"""

import argparse
import asyncio
import http.client
import io
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import openslide
import pandas as pd
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from glomerulab.apps.annotation.records import StudySettings
from glomerulab.apps.annotation.store.accounts import create_account
from glomerulab.apps.annotation.store.assignments import distribute
from glomerulab.apps.annotation.store.database import open_store
from glomerulab.apps.annotation.store.study import create_study
from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.runtime.names import hashed_name
from glomerulab.slides import tiles
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.taxonomy import load_taxonomy

PASSWORD = "a benchmark's password"
N_ANNOTATORS = 50
PERIOD_S = 2.0
IMAGE_PX = 512
SLIDE_PX = 6000
N_CONNECTIONS = 4


def texture(side: int, seed: int) -> np.ndarray:
    """Blobs with fine noise, about as hard to compress as tissue."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(90, 230, (side // 8, side // 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    noise = rng.integers(-9, 9, smooth.shape, dtype=np.int16)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def begin(
    folder: Path, *, n_images: int, n_annotators: int, db: str | Path | None = None
) -> str | Path:
    """Make a study in which everyone reads every image."""
    rows = []
    for number in range(n_images):
        Image.fromarray(texture(IMAGE_PX, number)).save(folder / f"{number}.png", compress_level=1)
        rows.append({"image_id": f"i{number}", "image_path": f"{number}.png"})
    manifest = manifest_from_rows(
        pd.DataFrame(rows), folder=folder, taxonomy=load_taxonomy("paper")
    )
    db = db or folder / "annotations.db"
    with open_store(db, create=True) as store:
        create_account(store, login="owner", name="Owner", role="owner", password=PASSWORD, by=None)
        settings = StudySettings("benchmark", n_annotators, 0.0)
        create_study(store, manifest, owner="owner", settings=settings)
        for number in range(n_annotators):
            create_account(
                store,
                login=f"reader{number}",
                name="Reader",
                role="annotator",
                password=PASSWORD,
                by="owner",
            )
        distribute(store, by="owner")
    return db


@contextmanager
def serving(db: str | Path, *options: str) -> Iterator[str]:
    """Run the command; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "glomerulab", "annotate", "serve", "--db", str(db)]
    with subprocess.Popen(
        [*command, "--port", str(port), *options], stdout=subprocess.DEVNULL
    ) as server:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                httpx.get(f"{address}/login")
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address
        server.send_signal(signal.SIGINT)


class Person:
    """One connection that stays open, written by hand.

    The client shares the server's cores: one with features takes more of them than the server.
    """

    def __init__(self, address: str) -> None:
        self.host, _, port = address.removeprefix("http://").partition(":")
        self.port = int(port)
        self.headers = ""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def log_in(self, login: str) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            self.host, self.port, limit=4 * 1024 * 1024
        )
        async with httpx.AsyncClient(base_url=f"http://{self.host}:{self.port}") as client:
            token = (await client.get("/api/entry")).json()["csrf_token"]
            answer = await client.post(
                "/api/session",
                json={"login": login, "password": PASSWORD},
                headers={"X-CSRF-Token": token},
                timeout=60,
            )
            cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        token = answer.raise_for_status().json()["csrf_token"]
        self.headers = (
            f"Host: {self.host}\r\nCookie: {cookies}\r\nX-CSRF-Token: {token}\r\n"
            "Content-Type: application/json\r\n"
        )

    async def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and content; every response of these routes states its length."""
        start = f"{method} {path} HTTP/1.1\r\n{self.headers}Content-Length: {len(body)}\r\n\r\n"
        self.writer.write(start.encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split(" ", 2)[1]), await self.reader.readexactly(length)


async def annotate(
    person: Person,
    begin_at: asyncio.Event,
    *,
    delay_s: float,
    n_items: int,
    times: dict[str, list[float]],
) -> int:
    """Label items at the pace of a fast reader; return the number of errors."""
    n_errors = 0
    await begin_at.wait()
    await asyncio.sleep(delay_s)
    for place in range(1, n_items + 1):
        turn = time.perf_counter()
        status, content = await timed(times["item"], person.request("GET", f"/api/items/{place}"))
        item = json.loads(content)
        seen, _ = await timed(times["image"], person.request("GET", item["image_url"]))
        body = {
            "assignment_id": item["assignment_id"],
            "labels": {"mspgn": 1},
            "expected_version": 0,
            "save_key": str(uuid.uuid4()),
            "seconds": 2.0,
            "image_mark": item["image_mark"],
        }
        sent = json.dumps(body).encode()
        saved, _ = await timed(times["save"], person.request("POST", "/api/annotations", sent))
        n_errors += sum(one != 200 for one in (status, seen, saved))
        await asyncio.sleep(max(0.0, PERIOD_S - (time.perf_counter() - turn)))
    person.writer.close()
    return n_errors


async def timed(times: list[float], answer: Awaitable[tuple[int, bytes]]) -> tuple[int, bytes]:
    start = time.perf_counter()
    given = await answer
    times.append(time.perf_counter() - start)
    return given


async def all_annotate(address: str, n_items: int) -> tuple[dict[str, list[float]], int]:
    times: dict[str, list[float]] = {"item": [], "image": [], "save": []}
    ready = asyncio.Event()
    delays = np.random.default_rng(0).random(N_ANNOTATORS) * PERIOD_S
    people = [Person(address) for _ in range(N_ANNOTATORS)]
    for number, person in enumerate(people):  # passwords take long by design
        await person.log_in(f"reader{number}")
    tasks = [
        asyncio.create_task(annotate(person, ready, delay_s=delay, n_items=n_items, times=times))
        for person, delay in zip(people, delays.tolist(), strict=True)
    ]
    ready.set()
    return times, sum(await asyncio.gather(*tasks))


def measure_load(n_items: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        db = begin(Path(temporary), n_images=n_items, n_annotators=N_ANNOTATORS)
        with serving(db) as address:
            times, n_errors = asyncio.run(all_annotate(address, n_items))
    print(f"{N_ANNOTATORS} annotators, {n_items} images each, one every {PERIOD_S:g} s")
    print("\n| request | n | median ms | p99 ms | max ms |\n|---|---|---|---|---|")
    for name, taken in times.items():
        ms = np.array(taken) * 1000
        print(
            f"| {name} | {len(ms)} | {np.median(ms):.1f} | {np.percentile(ms, 99):.1f} "
            f"| {ms.max():.1f} |"
        )
    print(f"\nerrors: {n_errors}\n")


def bare_tiles(slide: Path) -> tuple[int, float]:
    """Make every finest tile in a minimal loop."""
    generator = DeepZoomGenerator(openslide.OpenSlide(slide), tile_size=tiles.TILE_SIZE, overlap=1)
    level = generator.level_count - 1
    columns, rows = generator.level_tiles[level]
    start = time.perf_counter()
    for row in range(rows):
        for column in range(columns):
            tile = generator.get_tile(level, (column, row))
            tile.save(io.BytesIO(), format="JPEG", quality=tiles.JPEG_QUALITY, subsampling=0)
    return columns * rows, time.perf_counter() - start


def served_tiles(address: str, key: str, n_columns: int, n_rows: int) -> float:
    """Request every finest tile as a browser does, over a few connections that stay open.

    With the standard library's client: it takes less of the shared cores than one with features.
    """
    level = (SLIDE_PX - 1).bit_length()
    with httpx.Client(base_url=address) as person:
        token = person.get("/api/entry").json()["csrf_token"]
        body = {"login": "reader0", "password": PASSWORD}
        person.post("/api/session", json=body, headers={"X-CSRF-Token": token}).raise_for_status()
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in person.cookies.items())}
    places = iter([(column, row) for row in range(n_rows) for column in range(n_columns)])

    def work() -> None:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        for column, row in places:
            path = f"/slides/{key}/tiles/{level}/{column}_{row}.jpg"
            connection.request("GET", path, headers=cookie)
            answer = connection.getresponse()
            assert answer.read(2) == b"\xff\xd8", answer.status
            answer.read()
        connection.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(N_CONNECTIONS) as pool:
        for one in [pool.submit(work) for _ in range(N_CONNECTIONS)]:
            one.result()
    return time.perf_counter() - start


def measure_tiles(repeats: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide = folder / "slide.tiff"
        write_pyramid(texture(SLIDE_PX, 1), slide, mpp=0.25)
        db = begin(folder, n_images=1, n_annotators=1)
        side = -(-SLIDE_PX // tiles.TILE_SIZE)
        bare, served = [], []
        with serving(db, "--slides", str(slide)) as address:
            for _ in range(repeats):
                n_tiles, seconds = bare_tiles(slide)
                bare.append(n_tiles / seconds)
                taken = served_tiles(address, hashed_name("slide"), side, side)
                served.append(n_tiles / taken)
    ratio = statistics.median(one / other for one, other in zip(served, bare, strict=True))
    print(f"{side * side} tiles, {N_CONNECTIONS} connections, {repeats} runs, best of each")
    print("\n| | tiles/s |\n|---|---|")
    print(f"| bare loop, one thread | {max(bare):.0f} |\n| over HTTP | {max(served):.0f} |")
    print(f"\nratio over HTTP to bare, median of the runs: {ratio:.2f}\n")


def measure_keys(n_images: int, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary:
        db = begin(Path(temporary), n_images=n_images, n_annotators=1)
        with serving(db) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{address}/login")
            page.fill("#login", "reader0")
            page.fill("#password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_selector('#viewer[data-place="1"]')
            page.evaluate(
                "window.times = [];"
                "document.addEventListener('image-shown', (event) => times.push(event.detail.ms))"
            )
            for place in range(1, n_images):
                page.keyboard.press("234"[place % 3])
                page.wait_for_timeout(400)  # no one labels faster; the next image is loaded by then
                page.keyboard.press("Enter")
                page.wait_for_selector(f'#viewer[data-place="{place + 1}"]')
            times = page.evaluate("times")
            browser.close()
    print(f"{len(times)} images of {IMAGE_PX} px, from the key to the frame that shows the next\n")
    print("| median ms | p95 ms | max ms |\n|---|---|---|")
    print(
        f"| {statistics.median(times):.0f} | {np.percentile(times, 95):.0f} | {max(times):.0f} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["load", "tiles", "keys"])
    parser.add_argument("--items", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    if "load" in arguments.parts:
        measure_load(arguments.items)
    if "tiles" in arguments.parts:
        measure_tiles(arguments.repeats)
    if "keys" in arguments.parts:
        measure_keys(arguments.items, arguments.chromium)


if __name__ == "__main__":
    main()
