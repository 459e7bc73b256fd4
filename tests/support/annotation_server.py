"""The real command in a separate process, and its clients."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx

from tests.support.annotation_studies import PASSWORD

START_S = 60


class Server:
    """``glomerulab annotate serve`` on a free port; may be killed and started again."""

    def __init__(self, db: Path, *options: str) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._command = [
            sys.executable,
            "-m",
            "glomerulab",
            "annotate",
            "serve",
            "--db",
            str(db),
            "--port",
            str(self.port),
            *options,
        ]
        self._log = db.with_suffix(".log")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it responds."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(self.output())
            try:
                httpx.get(f"{self.address}/login", timeout=2)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"does not answer after {START_S} s: {self.output()}")

    def output(self) -> str:
        """Return its output so far."""
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as a person would."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()


def running(db: Path, *options: str) -> Iterator[Server]:
    """Yield a server for a fixture."""
    server = Server(db, *options)
    yield server
    server.stop()


def free_port() -> int:
    """Return an unused port."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Person:
    """A user of the HTTP interface."""

    def __init__(self, address: str, login: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=30)
        self.http.headers["X-CSRF-Token"] = self.http.get("/api/entry").json()["csrf_token"]
        answer = self.http.post("/api/session", json={"login": login, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        self.http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]

    def item(self, place: int) -> dict:
        """Return the item at a position of the annotator's queue."""
        return self.http.get(f"/api/items/{place}").raise_for_status().json()
