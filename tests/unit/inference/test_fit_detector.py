import math

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import TrainingError
from glomerulab.inference import fit_detector as subject
from glomerulab.inference.detector import open_detector
from glomerulab.pipeline.detector import DETECTOR_TAXONOMY
from glomerulab.slides.regions.files import write_regions
from tests.support.detecting import ByColour, disc_slide

DISCS = {
    "t": [(300, 300, 80)],
    "v": [(400, 300, 90), (1100, 550, 110)],
    "x": [(500, 450, 100), (1200, 300, 85)],
}
PART = {"t": "train", "v": "validation", "x": "test"}


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """One slide per part, and a network that knows discs by their colour."""
    (tmp_path / "regions").mkdir()
    (tmp_path / "run").mkdir()
    for name, discs in DISCS.items():
        write_regions(disc_slide(tmp_path / f"{name}.tif", discs), tmp_path / f"regions/{name}.csv")
    entries = [SlideEntry(tmp_path / f"{name}.tif", name, f"p{name}", "HE") for name in DISCS]
    rows = [
        {
            "image_id": name,
            "image_path": "x.png",
            "slide_id": name,
            "patient_id": f"p{name}",
            "split": part,
            "stain": "HE",
            "glomerulus": 1,
            "other": 0,
            "synthetic": 1,
        }
        for name, part in PART.items()
    ]
    tiles = manifest_from_rows(pd.DataFrame(rows), folder=tmp_path, taxonomy=DETECTOR_TAXONOMY)
    monkeypatch.setattr(subject, "open_engine", lambda _: ByColour())
    monkeypatch.setattr("glomerulab.inference.detector.open_engine", lambda _: ByColour())
    return tmp_path / "run", tiles, entries, tmp_path / "regions"


def test_threshold_and_size_come_from_validation_and_the_summary_from_test(cohort) -> None:
    card = subject.fit_detector(*cohort)
    assert 0 < card.score_threshold < 0.95
    assert card.growth == pytest.approx(1.0, abs=0.2)
    assert (card.n_validation_slides, card.stains_seen) == (1, ("HE",))
    assert card.trained_on_synthetic
    assert "On 1 synthetic slides of 1 patients" in card.test_summary
    assert "found 2 of 2 glomeruli (recall 1.00" in card.test_summary
    assert "2 个肾小球中检出 2 个（召回率 1.00" in card.test_summary_zh
    assert open_detector(cohort[0]).card == card
    assert open_detector(cohort[0]).facts.test_summary_zh == card.test_summary_zh


def test_without_a_test_part_nothing_is_claimed(cohort) -> None:
    run, tiles, entries, regions = cohort
    tiles = tiles.with_table(tiles.table[tiles.table["split"] != "test"])
    assert subject.fit_detector(run, tiles, entries, regions).test_summary == ""


def test_a_network_that_finds_nothing_says_how_to_go_on(cohort, monkeypatch) -> None:
    class Blind(ByColour):
        def answer(self, images):
            return super().answer(np.full_like(images, 255))

    monkeypatch.setattr(subject, "open_engine", lambda _: Blind())
    with pytest.raises(TrainingError, match="--set epochs"):
        subject.fit_detector(*cohort)


def test_each_slide_is_matched_by_itself(cohort) -> None:
    _, _, entries, regions = cohort
    seen = [subject.look_at(entry, regions, ByColour()) for entry in entries]
    assert [one.patient for one in seen] == ["pt", "pv", "px"]
    matches = subject.matches_of(seen, growth=1.0, rule="centre")
    assert [one.n_truth for one in matches] == [1, 2, 2]
    assert all((one.found >= 0).all() for one in matches)
    assert math.isclose(sum(len(one.scores) for one in matches), 5)
