"""Number of times that `predict` and `extract` open each slide, and their run time.

    python benchmarks/predict_slides.py RUN [--slides 10] [--rounds 3]

The slides are phantoms at the micrometres per pixel of the run. Workers count as well: each process
imports this file, which counts the calls of OpenSlide's constructor.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import openslide

COUNT_FILE = "GLOMERULAB_COUNT_OPENS"
open_original = openslide.OpenSlide.__init__


def open_counted(self: openslide.OpenSlide, filename: str | Path) -> None:
    """Open a slide and note its name."""
    if COUNT_FILE in os.environ:
        with Path(os.environ[COUNT_FILE]).open("a", encoding="utf-8") as file:
            file.write(f"{Path(filename).name}\n")
    open_original(self, filename)


openslide.OpenSlide.__init__ = open_counted


def main() -> None:
    # Not at the top: workers import this file.
    from glomerulab.inference.engines.open import open_engine
    from glomerulab.phantom.slides import write_phantom_slides
    from glomerulab.pipeline.crop_plan import CropSettings
    from glomerulab.pipeline.extract import extract_crops
    from glomerulab.pipeline.predict import PredictSettings, predict

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--slides", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    mpp = open_engine(arguments.run).card.mpp
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        table = write_phantom_slides(
            home / "phantom", n_patients=arguments.slides, n_glomeruli=8, seed=7, mpp=mpp
        )
        regions = home / "phantom" / "regions"

        def run_extract(n_workers: int) -> None:
            settings = CropSettings(mpp)
            extract_crops(
                table, regions=regions, out=home / "out", settings=settings, n_workers=n_workers
            )

        def run_predict(n_workers: int) -> None:
            settings = PredictSettings(regions, n_workers=n_workers)
            predict(table, arguments.run, home / "out", settings=settings)

        print("| | opens per slide | seconds |\n|---|---|---|")
        for name, work in (("extract", run_extract), ("predict", run_predict)):
            for n_workers in (1, 2):
                seconds = []
                for round_number in range(arguments.rounds):
                    shutil.rmtree(home / "out", ignore_errors=True)
                    os.environ[COUNT_FILE] = str(home / f"{name}-{n_workers}-{round_number}")
                    start = time.perf_counter()
                    work(n_workers)
                    seconds.append(time.perf_counter() - start)
                opens = Counter(Path(os.environ[COUNT_FILE]).read_text("utf-8").split("\n")[:-1])
                span = f"{min(opens.values())} to {max(opens.values())}"
                print(f"| {name}, {n_workers} workers | {span} | {min(seconds):.2f} |", flush=True)


if __name__ == "__main__":
    main()
