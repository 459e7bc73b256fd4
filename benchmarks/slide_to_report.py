"""Time by stage from a slide with 100 glomeruli to its HTML report, with a loaded model.

    glomerulab quickstart --out quickstart
    python benchmarks/slide_to_report.py quickstart/run [--workers 2] [--rounds 3]

The slide is a phantom at the micrometres per pixel of the run. Functions are timed where `predict`
and `report` call them; "rest" is the time between. The peer does the minimum of the same work:
OpenSlide, Pillow and the network, in one loop, without normalisation, calibration or report.
"""

import argparse
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

import glomerulab.pipeline.predict as predicting
import glomerulab.reports.case.write as writing
from glomerulab.inference.engines.open import open_engine
from glomerulab.phantom.slides import write_phantom_slides
from glomerulab.pipeline.predict import predict
from glomerulab.pipeline.predict_inputs import PredictSettings
from glomerulab.reports.case import html
from glomerulab.reports.case.write import write_case_reports
from glomerulab.slides.regions.files import read_regions
from glomerulab.slides.slide import open_slide

N_GLOMERULI = 100
STAGES = (
    ("open the slides, cut the crops", predicting, "read_inputs"),
    ("normalise", predicting, "normalize_manifest"),
    ("read, infer, measure", predicting, "answer_manifest"),
    ("calibration and table", predicting, "case_table"),
    ("write the predictions", predicting, "write_case_folder"),
    ("count, apply rules", writing, "build_cases"),
    ("pictures of the report", html, "crop_picture"),
    ("map of the report", html, "slide_map"),
)


@contextmanager
def timed(spent):
    """Time the functions of the stages while they are called."""
    originals = [(module, name, getattr(module, name)) for _, module, name in STAGES]

    def around(label, function):
        def wrapper(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        return wrapper

    for label, module, name in STAGES:
        setattr(module, name, around(label, getattr(module, name)))
    try:
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


def once(home, run, workers):
    """Go from the slide to the page once; return seconds by stage."""
    spent = {}
    out = home / "out"
    shutil.rmtree(out, ignore_errors=True)
    settings = PredictSettings(home / "phantom" / "regions", n_workers=workers)
    with timed(spent):
        start = time.perf_counter()
        predict(home / "phantom" / "slides.csv", run, out, settings=settings)
        write_case_reports(out, out / "reports", formats=["html"])
        total = time.perf_counter() - start
    return spent | {"rest": total - sum(spent.values()), "total": total}


def bare(home, engine):
    """Cut, resize and infer in a loop."""
    start = time.perf_counter()
    slide_path = next((home / "phantom").rglob("*.tif*"))
    region_path = next((home / "phantom" / "regions").glob("*.geojson"))
    size = engine.card.input_size
    with open_slide(slide_path) as slide:
        crops = [
            Image.fromarray(slide.read_region(one.box(), mpp=slide.mpp)).resize((size, size))
            for one in read_regions(region_path)
        ]
    batch = np.stack([np.asarray(crop) for crop in crops])
    for at in range(0, len(batch), 16):
        engine.predict(batch[at : at + 16])
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    engine = open_engine(arguments.run)
    predicting.open_engine = lambda _: engine
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        write_phantom_slides(
            home / "phantom",
            n_patients=1,
            n_glomeruli=N_GLOMERULI,
            seed=7,
            mpp=engine.card.mpp,
            n_workers=arguments.workers,
        )
        rounds, bares = [], []
        for _ in range(arguments.rounds):
            bares.append(bare(home, engine))
            rounds.append(once(home, arguments.run, arguments.workers))
            print({name: round(seconds, 2) for name, seconds in rounds[-1].items()}, flush=True)
    best = min(rounds, key=lambda one: one["total"])
    print(f"\n{N_GLOMERULI} glomeruli, {arguments.workers} workers, best of {arguments.rounds}")
    print("\n| stage | seconds |\n|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {seconds:.2f} |")
    print(f"| peer: cut, resize and infer in a bare loop | {min(bares):.2f} |")


if __name__ == "__main__":
    main()
