"""Saves of others while one reader imports a region file of 30,000 boxes.

Run: python benchmarks/annotation_import.py [postgresql://user@host/database]

The real command runs in a separate process, on the same cores as its clients. Four readers save
labels, first alone and then while another one's file is uploaded and imported: outlines of 24
points, as QuPath writes them, just below the limit of an upload. At the end, every box is there.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import psycopg

from annotation import PASSWORD, Person, begin, serving, texture, timed
from glomerulab.runtime.names import hashed_name
from glomerulab.slides.pyramid import write_pyramid

N_SAVING = 4
PERIOD_S = 0.2
SLIDE_PX = 4096
N_POINTS = 24


def write_boxes(path: Path, n_boxes: int) -> None:
    """Write outlines side by side, none of which touch."""
    n_across = math.ceil(math.sqrt(n_boxes))
    step = SLIDE_PX / n_across
    angles = np.linspace(0, 2 * np.pi, N_POINTS, endpoint=False)
    unit = 0.4 * step * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    features = []
    for number in range(n_boxes):
        row, column = divmod(number, n_across)
        ring = (unit + np.array([column + 0.5, row + 0.5]) * step).round(2).tolist()
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.UUID(int=number + 1)),
                "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                "properties": {"objectType": "annotation"},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def upload(address: str, file: Path) -> float:
    """Import a file as a browser does; return the seconds until its response."""
    content = file.read_bytes()
    with httpx.Client(base_url=address, timeout=900) as person:
        token = person.get("/api/entry").json()["csrf_token"]
        body = {"login": f"reader{N_SAVING}", "password": PASSWORD}
        answer = person.post("/api/session", json=body, headers={"X-CSRF-Token": token})
        token = answer.raise_for_status().json()["csrf_token"]
        start = time.perf_counter()
        answer = person.post(
            f"/slides/{hashed_name('slide')}/import",
            files={"file": ("boxes.geojson", content)},
            headers={"X-CSRF-Token": token},
        )
        assert answer.status_code == 303, answer.text
        seconds = time.perf_counter() - start
        n_boxes = len(person.get(f"/api/slides/{hashed_name('slide')}/regions").json())
    print(f"{n_boxes} boxes of a file of {len(content) / 1e6:.1f} MB in {seconds:.1f} s")
    return seconds


class Saving:
    """Readers who save labels, each of one image again and again."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.goes_on = True

    async def save(self, person: Person, delay_s: float) -> None:
        """Save until told otherwise; at an even pace, however long a save takes."""
        _, content = await person.request("GET", "/api/items/1")
        item = json.loads(content)
        version = item["version"]
        due = time.perf_counter() + delay_s
        while self.goes_on:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += PERIOD_S
            body = {
                "assignment_id": item["assignment_id"],
                "labels": {"normal": 0, "mspgn": 1, "fsg": 0, "cgn": 0},
                "expected_version": version,
                "save_key": str(uuid.uuid4()),
                "seconds": 1.0,
            }
            sent = json.dumps(body).encode()
            status, answer = await timed(
                self.seconds, person.request("POST", "/api/annotations", sent)
            )
            assert status == 200, answer
            version += 1

    async def during(self, people: list[Person], event: asyncio.Future | asyncio.Task) -> None:
        """Save until an event."""
        delays = [PERIOD_S * number / len(people) for number in range(len(people))]
        tasks = [
            asyncio.create_task(self.save(person, delay))
            for person, delay in zip(people, delays, strict=True)
        ]
        await event
        self.goes_on = False
        await asyncio.gather(*tasks)

    def row(self, name: str) -> str:
        """Return a row of the table."""
        ms = np.array(self.seconds) * 1000
        return (
            f"| {name} | {len(ms)} | {np.median(ms):.1f} | {np.percentile(ms, 99):.1f} "
            f"| {ms.max():.1f} |"
        )


async def measure(address: str, file: Path, alone_s: float) -> None:
    people = [Person(address) for _ in range(N_SAVING)]
    for number, person in enumerate(people):
        await person.log_in(f"reader{number}")
    alone, beside = Saving(), Saving()
    await alone.during(people, asyncio.create_task(asyncio.sleep(alone_s)))
    with ProcessPoolExecutor(1) as other:  # its client takes no time of the readers'
        imported = asyncio.get_running_loop().run_in_executor(other, upload, address, file)
        await beside.during(people, imported)
    print("\n| saves | n | median ms | p99 ms | max ms |\n|---|---|---|---|---|")
    print(alone.row("alone"))
    print(f"{beside.row('during the import')}\n")


def schema(url: str) -> str:
    """Return a place in a PostgreSQL that nothing else uses."""
    name = f"benchmark_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("postgres", nargs="?")
    parser.add_argument("--boxes", type=int, default=30_000)
    parser.add_argument("--alone-s", type=float, default=20.0)
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for kind in ["SQLite"] + ["PostgreSQL"] * bool(arguments.postgres):
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            slide, file = folder / "slide.tiff", folder / "boxes.geojson"
            write_pyramid(texture(SLIDE_PX, 1), slide, mpp=0.25)
            write_boxes(file, arguments.boxes)
            db = schema(arguments.postgres) if kind == "PostgreSQL" else None
            db = begin(folder, n_images=1, n_annotators=N_SAVING + 1, db=db)
            print(f"\n{kind}")
            address = stack.enter_context(serving(db, "--slides", str(slide)))
            asyncio.run(measure(address, file, arguments.alone_s))


if __name__ == "__main__":
    main()
