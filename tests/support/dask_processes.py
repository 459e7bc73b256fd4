"""A Dask scheduler and workers as processes of their own, each with its own working folder."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.cohorts import ONE_TIME

__all__ = [
    "COMMAND",
    "ENVIRONMENT",
    "dask",
    "free_port",
    "killer",
    "scheduler",
    "wait_until",
    "worker",
]

COMMAND = [sys.executable, "-m", "glomerulab"]
ENVIRONMENT = {**os.environ, **ONE_TIME, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
KILLER = """\
import os, signal, sys

def kill(event, arguments):
    if event == "open" and os.path.basename(str(arguments[0])).startswith("kills"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
"""


@contextmanager
def dask(
    *command: str, folder: Path | None = None, environment: Mapping[str, str] = ENVIRONMENT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of Dask, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *command],
        env=environment,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def scheduler(port: int):
    return dask("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")


def worker(port: int, *options: str, **further):
    address = f"tcp://127.0.0.1:{port}"
    return dask("worker", address, "--nthreads", "1", "--no-dashboard", *options, **further)


def killer(folder: Path) -> dict[str, str]:
    """Return an environment in which a process is killed when it opens a file called ``kills*``."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(KILLER)
    return ENVIRONMENT | {"PYTHONPATH": f"{folder}:{ENVIRONMENT['PYTHONPATH']}"}


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
