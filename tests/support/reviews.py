"""A review of predictions: changes as a page sends them, and the real command in a process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["ReviewProcess", "change"]

START_S = 60


def change(**parts: object) -> dict[str, object]:
    """A change as the page sends it."""
    return {
        "time": "2026-11-25T10:00:00+00:00",
        "by": "Dr Li",
        "image_id": "x",
        "labels": "cgn",
        "reason": 'cells, "many"',
        "place": "",
        "seen": 0,
        **parts,
    }


class ReviewProcess:
    """``glomerulab review`` in a separate process; may be killed and started again."""

    def __init__(self, predictions: Path, *options: str) -> None:
        self._command = [
            sys.executable,
            "-m",
            "glomerulab",
            "review",
            str(predictions),
            "--port",
            "0",
            *options,
        ]
        self._log = predictions.parent / "review.log"
        self.address = self.start()

    def start(self) -> str:
        """Start it, and return the address that it gives."""
        with self._log.open("wb") as log:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:\d+/\S+/", self.output())
            if found:
                self.address = found[0]
                return self.address
            if self.process.poll() is not None:
                raise AssertionError(self.output())
            time.sleep(0.05)
        raise AssertionError(f"gives no address within {START_S} s: {self.output()}")

    def output(self) -> str:
        """Return its output so far."""
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """End it as a person would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)
