import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest

from glomerulab.runtime.threads import limit_threads, n_processors

N_HERE = len(os.sched_getaffinity(0))
VARIABLES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, N_HERE),
        ({"cpu.max": "max 100000"}, N_HERE),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "120000 100000"}, min(2, N_HERE)),
        ({"cpu.max": "99900000 100000"}, N_HERE),
        ({"cpu.max": "broken"}, N_HERE),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, N_HERE),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_a_quota_limits_the_processors(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n", encoding="ascii")
    assert n_processors(tmp_path) == expected


def test_the_processors_of_this_machine_are_those_that_joblib_counts() -> None:
    assert n_processors() == joblib.cpu_count()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    limit_threads()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    limit_threads()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_variables_are_set_before_a_numeric_library_is_loaded() -> None:
    code = (
        "import sys, os, glomerulab.cli.main; assert 'torch' not in sys.modules;"
        "assert 'numpy' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1000"
