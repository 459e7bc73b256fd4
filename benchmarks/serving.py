"""A served model under load: p50, p95 and p99 of one crop, errors, and memory over time.

Run: python benchmarks/serving.py --minutes 10 [--clients 8] [--model RUN] [--folder FOLDER]

The real command runs in a separate process, on the same cores as its clients. By default it
serves an improved SE-ResNet50 at 224 px with untrained weights, calibrated on 42 synthetic
crops: the cost of a prediction does not depend on the weights. Each client sends one crop of 256 px
as PNG, waits for the response, and sends the next at once, on its own connection.
"""

import argparse
import http.client
import json
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tomli_w

from glomerulab.cohort.manifest import read_manifest, write_manifest
from glomerulab.inference.fit_calibration import fit_calibration
from glomerulab.inference.image_predictions import predict_manifest
from glomerulab.models.card import ModelCard
from glomerulab.models.checkpoint import save_checkpoint
from glomerulab.models.registry import create_model
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.predictions import write_predictions
from glomerulab.taxonomy import load_taxonomy

MODEL = "improved_seresnet50"
CROP_PX = 256
WARM_UP_S = 5.0


def make_run(folder: Path) -> Path:
    """Write a run with random weights and a fitted calibration; synthetic."""
    run = folder / "run"
    if (run / "gates" / "gates.json").is_file():
        return run
    path = write_phantom_crops(
        folder / "crops", n_patients=6, n_per_patient=7, size=CROP_PX, mpp=0.75, seed=1
    )
    manifest = read_manifest(path)
    number = manifest.table["patient_id"].str[-3:].astype(int)
    parts = np.array(["train", "validation"])[number % 2]
    manifest = manifest.with_table(manifest.table.assign(split=parts))
    paper = load_taxonomy("paper")
    card = ModelCard(
        model=MODEL,
        taxonomy_name=paper.name,
        labels=paper.labels,
        input_size=224,
        mean=(0.7, 0.5, 0.7),
        std=(0.2, 0.2, 0.2),
        mpp=0.75,
    )
    save_checkpoint(run / "checkpoint", create_model(MODEL, 4, seed=1).state_dict(), card)
    write_manifest(manifest, run / "manifest.csv")
    write_predictions(predict_manifest(run, manifest).table, run / "predictions.csv")
    config = {"seed": 0, "model": {"name": MODEL, "head": card.head}}
    (run / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")
    fit_calibration(run)
    return run


@contextmanager
def serving(run: Path):
    """Run the command; yield its process and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "glomerulab", "serve", "--model", run, "--port", port]
    with subprocess.Popen(
        [str(argument) for argument in command], stdout=subprocess.DEVNULL
    ) as server:
        try:
            while not is_ready(port):
                if server.poll() is not None:
                    sys.exit("the server did not start")
                time.sleep(0.2)
            yield server.pid, port
        finally:
            server.send_signal(signal.SIGINT)


def is_ready(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False


@dataclass
class Load:
    """Latencies and errors of the clients."""

    port: int
    crops: list[bytes]
    until: float
    counts_from: float
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def client(self, number: int) -> None:
        """Send crops until the time is up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        place = number
        while (start := time.perf_counter()) < self.until:
            place += 1
            try:
                connection.request(
                    "POST", "/v1/crops?stain=PAS&mpp=0.75", self.crops[place % len(self.crops)]
                )
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200 or "labels" not in json.loads(content):
                    self.errors.append(f"{answer.status} {content[:80]!r}")
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(repr(error))
                connection.close()
            if start >= self.counts_from:
                self.seconds.append(time.perf_counter() - start)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(run: Path, crops: list[bytes], *, minutes: float, n_clients: int) -> None:
    """Load the server and print the result."""
    with serving(run) as (pid, port):
        begin = time.perf_counter()
        load = Load(port, crops, begin + WARM_UP_S + 60 * minutes, begin + WARM_UP_S)
        clients = [
            threading.Thread(target=load.client, args=(number,)) for number in range(n_clients)
        ]
        for client in clients:
            client.start()
        memory = []
        for tenth in range(11):
            time.sleep(max(load.counts_from + 6 * minutes * tenth - time.perf_counter(), 0))
            memory.append(memory_mib(pid))
        for client in clients:
            client.join()
    cuts = statistics.quantiles(load.seconds, n=100)
    p50, p95, p99 = (1000 * cuts[place - 1] for place in (50, 95, 99))
    n = len(load.seconds)
    print(f"{n_clients} clients, {minutes:g} min: {n} crops, {n / minutes / 60:.1f} per second")
    print(f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, errors {len(load.errors)}")
    print("memory, MiB: " + " ".join(f"{one:.0f}" for one in memory))
    for error in load.errors[:5]:
        print(f"  {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--model", type=Path, help="another run, or an export")
    parser.add_argument("--folder", type=Path, help="where the run is made and kept")
    given = parser.parse_args()
    print(f"{platform.machine()}, {platform.python_version()}; research use only, synthetic crops")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        run = make_run(folder)
        crops = [path.read_bytes() for path in sorted((folder / "crops").rglob("*.png"))]
        measure(given.model or run, crops, minutes=given.minutes, n_clients=given.clients)


if __name__ == "__main__":
    main()
