"""Wall time, processor time and peak memory of ``glomerulab quickstart``, all processes together.

Run: python benchmarks/quickstart.py

Memory is the sum over the processes of their proportional share (PSS, from smaps_rollup), read
every quarter second: pages that processes share count once. No cache is used: kernels are
compiled again in a separate folder, as in the first run on a machine.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS_BETWEEN_LOOKS = 0.25


def tree_of(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _text(task).split()]
    return found


def share_kib(pid: int) -> int:
    """Return the proportional share of the memory of a process; 0 once it has ended."""
    lines = _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended since it was listed
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    workers = parser.parse_args().workers
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary, "quickstart")
        command = [sys.executable, "-m", "glomerulab", "quickstart", "--out", str(out)]
        start, peak = time.perf_counter(), 0
        run = subprocess.Popen(
            [*command, "--workers", str(workers)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(Path(temporary, "compiled"))},
        )
        while run.poll() is None:
            peak = max(peak, sum(share_kib(pid) for pid in tree_of(run.pid)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
        wall = time.perf_counter() - start
        output = run.stdout.read() if run.stdout else ""
    if run.returncode:
        raise SystemExit(run.returncode)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(output)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {workers} workers\n")
    print("| wall | processor time | peak memory |\n|---|---|---|")
    print(f"| {wall:.0f} s | {used.ru_utime + used.ru_stime:.0f} s | {peak / 1024**2:.2f} GiB |")


if __name__ == "__main__":
    main()
