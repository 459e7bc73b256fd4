import json
import math

import numpy as np
import pandas as pd
import pytest

from glomerulab.cohort.manifest import manifest_from_rows
from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.errors import CheckpointError, RunError, TrainingError
from glomerulab.inference.detector import (
    Detector,
    detect_on,
    fit_detector,
    is_detector,
    match_slides,
    open_detector,
    write_detector_card,
)
from glomerulab.inference.engines.open import open_engine
from glomerulab.pipeline.detector import DETECTOR_TAXONOMY
from glomerulab.runtime.sealing import write_seal
from glomerulab.slides.regions.files import write_regions
from glomerulab.slides.regions.polygons import overlap
from glomerulab.slides.regions.proposals import is_proposal
from glomerulab.slides.slide import open_slide
from tests.support.detecting import ByColour, detector_card, disc_slide


def test_discs_are_proposed_as_regions_on_the_slide(tmp_path) -> None:
    truth = disc_slide(tmp_path / "s1.tif", [(400, 300, 90), (1100, 600, 110)])
    detector = Detector(ByColour(), detector_card(), "dots")
    with open_slide(tmp_path / "s1.tif") as slide:
        proposals = detector.propose(slide, "s1")
    assert sorted(
        max(overlap(one.region.polygon, other.polygon) for other in truth) > 0.6
        for one in proposals
    ) == [True, True]
    assert [one.region.region_id for one in proposals] == ["s1 proposal 1", "s1 proposal 2"]
    assert all(is_proposal(one.region) for one in proposals)
    assert detector.facts.run == "dots"


def test_blobs_below_the_threshold_are_not_proposed(tmp_path) -> None:
    disc_slide(tmp_path / "s1.tif", [(400, 300, 90)])
    with open_slide(tmp_path / "s1.tif") as slide:
        assert (
            Detector(ByColour(), detector_card(score_threshold=1.1), "d").propose(slide, "s1") == []
        )


def test_a_run_with_a_card_is_a_detector(own_run) -> None:
    assert not is_detector(own_run)
    with pytest.raises(CheckpointError, match="train-detector"):
        open_detector(own_run)
    sha = open_engine(own_run).weights_sha256
    write_detector_card(detector_card(weights_sha256=sha), own_run)
    with pytest.raises(RunError, match="added"):
        open_detector(own_run)
    write_seal(own_run)
    assert is_detector(own_run)
    assert open_detector(own_run).card.growth == 1.0


def test_a_card_of_other_weights_or_a_damaged_one_is_refused(own_run) -> None:
    write_detector_card(detector_card(), own_run)
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="other weights"):
        open_detector(own_run)
    path = own_run / "detector.json"
    path.write_text(json.dumps({"growth": "large"}))
    write_seal(own_run)
    with pytest.raises(CheckpointError, match="weights_sha256"):
        open_detector(own_run)


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        open_detector(tmp_path / "nowhere")


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
    monkeypatch.setattr("glomerulab.inference.detector.open_engine", lambda _: ByColour())
    monkeypatch.setattr("glomerulab.inference.detector.open_engine", lambda _: ByColour())
    return tmp_path / "run", tiles, entries, tmp_path / "regions"


def test_threshold_and_size_come_from_validation_and_the_summary_from_test(cohort) -> None:
    card = fit_detector(*cohort)
    assert 0 < card.score_threshold < 0.95
    assert card.growth == pytest.approx(1.0, abs=0.2)
    assert (card.n_validation_slides, card.stains_seen) == (1, ("HE",))
    assert card.trained_on_synthetic
    assert "On 1 synthetic slides of 1 patients" in card.test_summary
    assert "found 2 of 2 glomeruli (recall 1.00" in card.test_summary
    assert "2 个肾小球中检出 2 个（召回率 1.00" in card.test_summary_zh
    assert open_detector(cohort[0]).card == card
    assert open_detector(cohort[0]).facts.test_summary_zh == card.test_summary_zh


def test_without_a_test_part_the_summary_is_empty(cohort) -> None:
    run, tiles, entries, regions = cohort
    tiles = tiles.with_table(tiles.table[tiles.table["split"] != "test"])
    assert fit_detector(run, tiles, entries, regions).test_summary == ""


def test_a_network_without_detections_is_refused_with_advice(cohort, monkeypatch) -> None:
    class Blind(ByColour):
        def predict(self, images):
            return super().predict(np.full_like(images, 255))

    monkeypatch.setattr("glomerulab.inference.detector.open_engine", lambda _: Blind())
    with pytest.raises(TrainingError, match="--set epochs"):
        fit_detector(*cohort)


def test_each_slide_is_matched_separately(cohort) -> None:
    _, _, entries, regions = cohort
    seen = [detect_on(entry, regions, ByColour()) for entry in entries]
    assert [one.patient for one in seen] == ["pt", "pv", "px"]
    matches = match_slides(seen, growth=1.0, rule="centre")
    assert [one.n_truth for one in matches] == [1, 2, 2]
    assert all((one.found >= 0).all() for one in matches)
    assert math.isclose(sum(len(one.scores) for one in matches), 5)
