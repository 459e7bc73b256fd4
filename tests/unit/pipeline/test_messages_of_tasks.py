"""What a step sends to a worker of a cluster and gets back: paths and small rows, no pixels."""

import pickle
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from glomerulab.cohort.manifest import Manifest, read_manifest
from glomerulab.cohort.validation import validate_manifest
from glomerulab.explain.explainer import Explainer, find_inputs
from glomerulab.geometry import Box, Region
from glomerulab.pipeline.cohort import predict_cohort
from glomerulab.pipeline.cohort_report import report_cohort
from glomerulab.pipeline.embed import write_features
from glomerulab.pipeline.extract import extract_crops
from glomerulab.pipeline.normalize import normalize_manifest
from glomerulab.pipeline.predict_inputs import PredictSettings
from glomerulab.runtime.parallel import Outcome, outcome_of
from glomerulab.slides.regions.files import write_regions
from glomerulab.stain.fitting import fit
from tests.support.beer_lambert import PAS, section

MOST_BYTES = 20_000
"""Of a message; a crop of these tests has 60,000."""


class Weighed:
    """One worker whose messages are pickled, as those of a cluster, and weighed."""

    def __init__(self) -> None:
        self.n_bytes: list[int] = []

    def outcomes(
        self, function: Callable[..., object], items: Sequence[object]
    ) -> Generator[Outcome[object, object], None, None]:
        for item in items:
            sent = pickle.dumps((function, item))
            returned = pickle.dumps(outcome_of(*pickle.loads(sent)))
            self.n_bytes += [len(sent), len(returned)]
            yield pickle.loads(returned)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of two patients with five regions each, and their crops."""
    from glomerulab.slides.pyramid import write_pyramid
    from tests.conftest import smooth_noise

    home = tmp_path_factory.mktemp("home")
    lines = ["slide_path,slide_id,patient_id,stain"]
    for number in range(2):
        pixels = smooth_noise(900, 1200, seed=number)
        write_pyramid(pixels, home / f"s{number}.tif", mpp=0.5, compression="deflate")
        boxes = [Box(70 + 160 * n, 70 + 130 * n, 140, 140) for n in range(5)]
        regions = [Region.from_box(f"g{n}", box, labels=("cgn",)) for n, box in enumerate(boxes)]
        write_regions(regions, home / f"s{number}.geojson")
        lines.append(f"s{number}.tif,s{number},p{number},PAS")
    (home / "slides.csv").write_text("\n".join(lines) + "\n")
    return home


@pytest.fixture(scope="module")
def crops(home: Path) -> Manifest:
    extract_crops(home / "slides.csv", regions=home, out=home / "crops")
    return read_manifest(home / "crops" / "manifest.csv")


def _extract(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed) -> None:
    extract_crops(home / "slides.csv", regions=home, out=out, workers=workers)


def _normalize(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed) -> None:
    target = fit(section(1, dyes=PAS).image, "PAS")
    for per in ("slide", "image"):
        normalize_manifest(crops, {"PAS": target}, out / per, per=per, workers=workers)


def _check(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed) -> None:
    validate_manifest(crops, workers=workers)


def _embed(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed) -> None:
    write_features(home / "crops" / "manifest.csv", str(run), out, workers=workers)


def _explain(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed) -> None:
    explainer = Explainer(run, methods=("grad-cam",))
    inputs = find_inputs(home / "crops" / "manifest.csv", explainer.card.taxonomy)
    explainer.explain(inputs[:2], out, workers=workers)


def _predict_and_report(home: Path, run: Path, crops: Manifest, out: Path, workers: Weighed):
    predict_cohort(
        home / "slides.csv", run, out, settings=PredictSettings(regions=home), workers=workers
    )
    report_cohort(out, formats=["html"], workers=workers)


@pytest.mark.parametrize(
    "step", [_extract, _normalize, _check, _embed, _explain, _predict_and_report]
)
def test_no_message_holds_pixels(step, home, trained, crops, tmp_path) -> None:
    workers = Weighed()
    step(home, trained, crops, tmp_path / "out", workers)
    assert len(workers.n_bytes) >= 2
    assert max(workers.n_bytes) < MOST_BYTES
