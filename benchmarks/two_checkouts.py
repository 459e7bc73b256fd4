"""Run time of commands in two checkouts of this package, in alternate runs; best of several.

    python benchmarks/two_checkouts.py OLD/src NEW/src [--rounds 3] [--quickstart-rounds 2]

Both run with this interpreter. All data are synthetic: the slides come from the phantom, and the
model that `predict` applies is that of the first quickstart.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NORMALIZE = """
import sys, time
import numpy as np
from glomerulab.cohort.manifest import read_manifest
from glomerulab.images import read_image
from glomerulab.stain.fitting import fit
from glomerulab.stain.normalize import normalize
from pathlib import Path

target_path, path = read_manifest(Path(sys.argv[1])).image_paths()[:2]
target = fit(read_image(target_path), "HE")
image = np.tile(read_image(path), (8, 8, 1))
side, n_calls = int(sys.argv[2]), int(sys.argv[3])
image = np.ascontiguousarray(image[:side, :side])
normalize(image, target)
best = float("inf")
for _ in range(n_calls):
    start = time.perf_counter()
    normalize(image, target)
    best = min(best, time.perf_counter() - start)
print(best)
"""


def run(source: Path, *arguments: object) -> str:
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def timed(source: Path, *arguments: object) -> float:
    start = time.perf_counter()
    run(source, "-m", "glomerulab", *arguments)
    return time.perf_counter() - start


def compare(
    name: str, sources: tuple[Path, Path], measure: Callable[[Path], float], *, rounds: int
) -> None:
    seconds = [[measure(source) for source in sources] for _ in range(rounds)]
    before, after = (min(one) for one in zip(*seconds, strict=True))
    print(f"| {name} | {before:.4g} | {after:.4g} | {after / before:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quickstart-rounds", type=int, default=2)
    arguments = parser.parse_args()
    sources = (arguments.old.resolve(), arguments.new.resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new = sources[1]
        crops, phantom = folder / "crops", folder / "phantom"
        timed(new, "phantom", "--out", crops, "--patients", 2, "--per-patient", 2, "--stains", "HE")
        timed(
            new,
            *("phantom", "--slides", "--out", phantom, "--mpp", 1),
            *("--patients", 10, "--per-patient", 8),
        )
        number = iter(range(1000))

        def fresh() -> Path:
            return folder / f"out-{next(number)}"

        def quickstart(source: Path) -> float:
            return timed(source, "quickstart", "--out", fresh())

        def normalize(source: Path, side: int, n_calls: int) -> float:
            return float(run(source, "-c", NORMALIZE, crops / "manifest.csv", side, n_calls))

        regions = ("--regions", phantom / "regions")
        slides = phantom / "slides.csv"
        model = fresh()
        timed(new, "quickstart", "--out", model)
        for source in sources:  # compiled kernels are cached by the first run
            timed(source, "extract", slides, *regions, "--out", fresh(), "--mpp", 1)
            normalize(source, 224, 1)
        print("| command | before, s | after, s | ratio |\n|---|---|---|---|")
        compare("`--help`", sources, lambda s: timed(s, "--help"), rounds=8 * arguments.rounds)
        compare(
            "`extract`, 10 phantom slides of 8 regions",
            sources,
            lambda s: timed(s, "extract", slides, *regions, "--out", fresh(), "--mpp", 1),
            rounds=arguments.rounds,
        )
        compare(
            "`predict`, the same slides",
            sources,
            lambda s: timed(
                s, "predict", slides, "--model", model / "run", *regions, "--out", fresh()
            ),
            rounds=arguments.rounds,
        )
        compare(
            "`normalize` in process, 224²",
            sources,
            lambda s: normalize(s, 224, 200),
            rounds=arguments.rounds,
        )
        compare(
            "`normalize` in process, 2000²",
            sources,
            lambda s: normalize(s, 2000, 15),
            rounds=arguments.rounds,
        )
        compare("`quickstart`", sources, quickstart, rounds=arguments.quickstart_rounds)


if __name__ == "__main__":
    main()
