"""Threads of numeric libraries on a machine that others use too, or that grants a share of it.

The variables are read when a library is loaded, so they are set when `glomerulab` is imported.
"""

import math
import os
from pathlib import Path

__all__ = ["limit_threads", "n_processors"]

CGROUPS = Path("/sys/fs/cgroup")
SPIN_COUNT = "1000"
"""Rounds that an OpenMP thread waits for the others before it sleeps. By default it waits 300,000:
while another program has the other thread's core, it burns its own share."""


def limit_threads() -> None:
    """Set OpenMP's variables for what the machine grants; those that the user has set stay."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # GNU: torch's wheels
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel and LLVM: torch of conda
    granted = n_processors()
    if granted < _n_allowed():  # OpenMP knows the affinity, but no quota
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))


def n_processors(cgroups: Path = CGROUPS) -> int:
    """Return how many processors this process may use: its affinity, and a container's quota.

    Parameters
    ----------
    cgroups : Path
        Where Linux shows the control groups, version 1 or 2.
    """
    quotas = [_n_allowed(), *_quotas(cgroups)]
    return max(1, math.ceil(min(quotas)))


def _n_allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(cgroups: Path) -> list[float]:
    """Return the processors that each control group around this process grants."""
    found = []
    for group in (cgroups, *_own_groups(cgroups)):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if not quota:
            quota = _text(group / "cpu" / "cpu.cfs_quota_us")
            period = _text(group / "cpu" / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            found.append(int(quota) / int(period))
    return found


def _own_groups(cgroups: Path) -> list[Path]:
    """Return the folder of this process's group (version 2), and those around it."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::/"):
            own = cgroups / line.removeprefix("0::/")
            return [own, *(parent for parent in own.parents if parent.is_relative_to(cgroups))]
    return []


def _text(path: Path) -> str:
    """Return the text of a file of the kernel; empty where there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
