"""What people read, entered and corrected is what it was, or the difference is named."""

import multiprocessing
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest

from glomerulab.cases.corrections import CorrectionRow, append_rows, read_rows
from glomerulab.errors import PredictionsError

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")


def _correction(number: int) -> CorrectionRow:
    time_ = f"2026-02-02T00:00:{number % 60:02}+00:00"
    return CorrectionRow(time_, "新 B", f"g{number}", "fsg", f'seen, "{number}"\ntwice', "1 2 3 4")


def _append_until_killed(path: Path, acknowledged: Path, max_bytes: int | None) -> None:
    """Append and acknowledge rows; the kernel kills the process in the write that passes a size."""
    if max_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))
    file = os.open(acknowledged, os.O_WRONLY | os.O_APPEND)
    number = len(acknowledged.read_bytes())
    while True:
        rows = [_correction(number)]
        append_rows(path, lambda _stored, rows=rows: rows)
        os.write(file, b".")
        number += 1


def _acknowledged_rows(acknowledged: Path) -> list[CorrectionRow]:
    return [_correction(number) for number in range(len(acknowledged.read_bytes()))]


def test_a_correction_killed_between_two_bytes_loses_and_swallows_nothing(tmp_path) -> None:
    n_torn = 0
    for max_bytes in range(1, 400, 3):
        path, acknowledged = tmp_path / f"{max_bytes}.csv", tmp_path / f"{max_bytes}.acknowledged"
        acknowledged.touch()
        child = FORK.Process(target=_append_until_killed, args=(path, acknowledged, max_bytes))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGXFSZ
        expected = _acknowledged_rows(acknowledged)
        try:
            found = list(read_rows(path))
        except PredictionsError:
            n_torn += 1
            end = b'"1 2 3 4"\n'
            whole, last, _ = path.read_bytes().rpartition(end)
            path.write_bytes(whole + last)  # the way out: the torn row is removed
            found = list(read_rows(path))
        assert found == expected
    assert n_torn > 50


def test_every_correction_acknowledged_before_a_kill_is_there(tmp_path) -> None:
    path, acknowledged = tmp_path / "overrides.csv", tmp_path / "acknowledged"
    acknowledged.touch()
    rng = random.Random(17)
    for _ in range(30):
        child = FORK.Process(target=_append_until_killed, args=(path, acknowledged, None))
        child.start()
        time.sleep(rng.uniform(0.02, 0.2))
        child.kill()
        child.join()
        expected = _acknowledged_rows(acknowledged)
        found = list(read_rows(path))
        assert found[: len(expected)] == expected
        assert len(found) <= len(expected) + 1  # on disk, and killed before it was acknowledged
        acknowledged.write_bytes(b"." * len(found))
    assert len(expected) > 30
