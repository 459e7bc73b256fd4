"""A command that serves pages, in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

__all__ = ["ServerProcess", "free_port"]

START_S = 120


def free_port() -> int:
    """Return an unused port."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class ServerProcess:
    """``glomerulab`` with arguments; may be killed and started again."""

    def __init__(self, *arguments: object, log: Path) -> None:
        self._command = [sys.executable, "-m", "glomerulab", *map(str, arguments)]
        self._log = log
        self.start()

    def is_ready(self) -> bool:
        """Whether the server responds."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("wb") as log:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.is_ready():
                return
            if self.process.poll() is not None:
                raise AssertionError(self.output())
            time.sleep(0.05)
        raise AssertionError(f"not ready after {START_S} s: {self.output()}")

    def output(self) -> str:
        """Return its output since it was started."""
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a person would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode
