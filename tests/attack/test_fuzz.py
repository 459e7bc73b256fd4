"""Damaged files: every reader returns or refuses with a clear error, in bounded time and memory.

``GLOMERULAB_FUZZ_INPUTS`` sets the number of inputs of each reader (default 40), and
``GLOMERULAB_FUZZ_SEED`` the first of them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fuzz_readers import MAX_CPU_S, READERS, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,  # its time on a quiet machine was not measured yet
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning"),
]

N_INPUTS = int(os.environ.get("GLOMERULAB_FUZZ_INPUTS", "40"))
FIRST = int(os.environ.get("GLOMERULAB_FUZZ_SEED", "0"))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def outcomes(corpus: Path, name: str) -> Iterator[dict[str, object]]:
    """Yield what became of each input; a process that died is started again behind it."""
    at, stop = FIRST, FIRST + N_INPUTS
    while at < stop:
        command = [sys.executable, "-m", "tests.support.fuzz_readers", corpus, name, at, stop]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        done = subprocess.run(
            list(map(str, command)),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60 + MAX_CPU_S * N_INPUTS,
            check=False,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, done.stderr[-2000:]
        yield from (line for line in lines if "outcome" in line)
        last = lines[-1]
        if "outcome" not in last:
            yield {**last, "outcome": f"died ({done.returncode})", "text": done.stderr[-300:]}
        at = int(last["number"]) + 1


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused(corpus: Path, name: str) -> None:
    found = list(outcomes(corpus, name))
    assert len(found) == N_INPUTS
    assert [one for one in found if one["outcome"] not in {"read", "refused"}] == []
