"""Run time of ``glomerulab --help``, as measured from a shell.

Run: python benchmarks/startup.py

The peers are an interpreter with an empty program, and one that imports typer, the library of the
command line: lower bounds for a program of this kind. Runs alternate; the best of each is printed,
since other load only adds time.
"""

import argparse
import os
import platform
import subprocess
import sys
import time

COMMANDS = {
    "peer: python with an empty program": ("-c", "pass"),
    "peer: python that imports typer": ("-c", "import typer"),
    "glomerulab --help": ("-m", "glomerulab", "--help"),
    "glomerulab extract --help": ("-m", "glomerulab", "extract", "--help"),
}


def seconds(arguments: tuple[str, ...]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            taken[name].append(seconds(arguments))
    print(f"best of {repeats}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| command | seconds | median |\n|---|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {min(times):.2f} | {sorted(times)[len(times) // 2]:.2f} |")


if __name__ == "__main__":
    main()
