"""Phantom crops and megapixels of slide that one core renders per second.

Run: ``python benchmarks/phantom.py``. Prints a Markdown table; one process, one thread, best of
three rounds. Thread time is measured beside wall time, since wall time is not comparable on a
busy machine. The peer row draws as many random numbers as a crop has pixels and channels: the cost
of the noise.
"""

import os
import platform
import time
from collections.abc import Callable

import numpy as np

from glomerulab.phantom.crops import render_crop
from glomerulab.phantom.glomerulus import KINDS
from glomerulab.phantom.section import draw_section, scanner_park
from glomerulab.phantom.slides import render_slide

N_CROPS = 30
N_ROUNDS = 3


def main() -> None:
    section = draw_section("PAS", np.random.default_rng(0), scanner=scanner_park(0)[0])
    kinds = list(KINDS)
    rng = np.random.default_rng(0)

    def crops() -> float:
        for n in range(N_CROPS):
            render_crop(kinds[n % len(kinds)], section, n)
        return N_CROPS

    def noise() -> float:
        for _ in range(N_CROPS):
            rng.standard_normal((512, 512, 3), dtype=np.float32)
        return N_CROPS

    def slide() -> float:
        return render_slide(kinds, section, 0, mpp=0.5).pixels[..., 0].size / 1e6

    render_crop("fsg+cgn", section, 0)  # compile, or load what was compiled
    render_slide(["normal"], section, 0, mpp=4.0)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 used\n")
    print("| what | per second of the core | per minute | seconds, wall |")
    print("|---|---|---|---|")
    _row("crops of 512 x 512", crops)
    _row("peer: only their noise", noise)
    _row("slide at mpp 0.5, megapixels", slide)


def _row(name: str, work: Callable[[], float]) -> None:
    rounds = [_seconds(work) for _ in range(N_ROUNDS)]
    amount = rounds[0][0]
    cpu, wall = min(each[1] for each in rounds), min(each[2] for each in rounds)
    print(f"| {name} | {amount / cpu:.2f} | {60 * amount / cpu:.0f} | {wall:.1f} |")


def _seconds(work: Callable[[], float]) -> tuple[float, float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    amount = work()
    return amount, time.thread_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
