"""Every command that writes is killed (SIGKILL) and repeated: the result is that of one run.

The commands run as real processes. Moments of kills are spread from the first file that a command
writes to its end, as an undisturbed run measured them, with one before the first file.
``GLOMERULAB_KILL_MOMENTS`` sets their number in the long tests (default 10).
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.killed_commands import COMMANDS, write_inputs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
N_MOMENTS = int(os.environ.get("GLOMERULAB_KILL_MOMENTS", "10"))
QUICK = ("split", "extract", "normalize", "report", "predict")
"""Of which two moments are tried in the slow tests; the others train, or compile a network."""
POLL_S = 0.01


@dataclass
class Stage:
    """A folder of inputs in which commands run, always under the same path."""

    folder: Path
    inputs: Path

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.inputs, self.folder)

    def start(self, command: tuple[str, ...]) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        return subprocess.Popen(
            [sys.executable, "-m", "glomerulab", *command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, command: tuple[str, ...]) -> None:
        process = self.start(command)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-2000:]

    def measure(self, command: tuple[str, ...]) -> tuple[float, float]:
        """Run a command; return the seconds to its first file, and from there to its end."""
        started = time.monotonic()
        process = self.start(command)
        self.wait_for_a_file(process)
        first = time.monotonic()
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-2000:]
        return first - started, time.monotonic() - first

    def kill(self, command: tuple[str, ...], *, after_s: float, of_first_file: bool) -> None:
        """Start a command and kill it and its children at a moment; it may have ended."""
        process = self.start(command)
        if of_first_file:
            self.wait_for_a_file(process)
        deadline = time.monotonic() + after_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def wait_for_a_file(self, process: subprocess.Popen[str]) -> None:
        before = self._state()
        while process.poll() is None and self._state() == before:
            time.sleep(POLL_S)

    def _state(self) -> dict[str, int]:
        found = {}
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # it was a temporary file
                found[str(path)] = path.stat().st_mtime_ns
        return found

    def content(self) -> dict[str, bytes]:
        """Return every file without the times that must differ."""
        return {
            str(path.relative_to(self.folder)): TIMES.get(path.name, _as_it_is)(path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


def _as_it_is(content: bytes) -> bytes:
    return content


def _without(*keys: str) -> Callable[[bytes], bytes]:
    """Return a JSON text without keys, at any depth."""

    def drop(value: object) -> object:
        if isinstance(value, dict):
            return {key: drop(one) for key, one in value.items() if key not in keys}
        return [drop(one) for one in value] if isinstance(value, list) else value

    return lambda content: json.dumps(drop(json.loads(content))).encode()


def _answers(content: bytes) -> bytes:
    """Of each image the last entry; without the time of its crop, by which it is found again."""
    entries = [json.loads(line) for line in content.splitlines()]
    found = {one["image_id"]: {**one, "modified": None} for one in entries}
    return json.dumps(found, sort_keys=True).encode()


def _history(content: bytes) -> bytes:
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    return json.dumps([{**row, "images_per_second": None} for row in rows]).encode()


TIMES: dict[str, Callable[[bytes], bytes]] = {
    "case.json": _without("created", "facts_sha256"),
    "answers.jsonl": _answers,
    "history.csv": _history,
    "seal.json": _without("history.csv"),
}
"""What is left of files that hold a time, or the hash of one."""


@pytest.fixture(scope="module")
def stage(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    home = tmp_path_factory.mktemp("kills")
    write_inputs(home / "inputs", trained)
    return Stage(home / "stage", home / "inputs")


def _different(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Return the files that are in one of the two only, or have other bytes there."""
    names = sorted(found.keys() | expected.keys())
    return [name for name in names if found.get(name) != expected.get(name)]


@pytest.mark.parametrize("name", QUICK)
def test_a_command_killed_twice_in_a_row_and_repeated_gives_the_result_of_one_run(
    stage: Stage, name: str
) -> None:
    command = COMMANDS[name]
    stage.reset()
    _, after = stage.measure(command)
    expected = stage.content()
    stage.reset()
    for share in (0.1, 0.6):
        stage.kill(command, after_s=share * after, of_first_file=True)
    stage.finish(command)
    assert _different(stage.content(), expected) == []


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_moment_and_repeated_gives_the_result_of_one_run(
    stage: Stage, name: str
) -> None:
    command = COMMANDS[name]
    stage.reset()
    before, after = stage.measure(command)
    expected = stage.content()
    moments = [(0.7 * before, False)]
    moments += [(after * n / (N_MOMENTS - 1), True) for n in range(N_MOMENTS - 1)]
    for after_s, of_first_file in moments:
        stage.reset()
        stage.kill(command, after_s=after_s, of_first_file=of_first_file)
        stage.finish(command)
        assert _different(stage.content(), expected) == []
