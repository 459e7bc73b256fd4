import json

import pytest

from glomerulab.errors import CheckpointError
from glomerulab.inference.detector import (
    Detector,
    DetectorCard,
    is_detector,
    open_detector,
    write_detector_card,
)
from glomerulab.inference.engines.base import open_engine
from glomerulab.slides.regions.polygons import overlap
from glomerulab.slides.regions.proposals import is_proposal
from glomerulab.slides.slide import open_slide
from tests.support.detecting import ByColour, disc_slide


def card(**changes) -> DetectorCard:
    facts = {
        "weights_sha256": "cd" * 32,
        "score_threshold": 0.5,
        "growth": 1.0,
        "n_validation_slides": 2,
        "stains_seen": ("PAS",),
        "trained_on_synthetic": True,
        "test_summary": "",
    }
    return DetectorCard.model_validate(facts | changes)


def test_discs_are_proposed_as_regions_on_the_slide(tmp_path) -> None:
    truth = disc_slide(tmp_path / "s1.tif", [(400, 300, 90), (1100, 600, 110)])
    detector = Detector(ByColour(), card(), "dots")
    with open_slide(tmp_path / "s1.tif") as slide:
        proposals = detector.propose(slide, "s1")
    assert sorted(
        max(overlap(one.region.polygon, other.polygon) for other in truth) > 0.6
        for one in proposals
    ) == [True, True]
    assert [one.region.region_id for one in proposals] == ["s1 proposal 1", "s1 proposal 2"]
    assert all(is_proposal(one.region) for one in proposals)
    assert detector.facts.run == "dots"


def test_what_scores_less_than_the_threshold_is_not_proposed(tmp_path) -> None:
    disc_slide(tmp_path / "s1.tif", [(400, 300, 90)])
    with open_slide(tmp_path / "s1.tif") as slide:
        assert Detector(ByColour(), card(score_threshold=1.1), "d").propose(slide, "s1") == []


def test_a_run_becomes_a_detector_by_its_card(own_run) -> None:
    assert not is_detector(own_run)
    with pytest.raises(CheckpointError, match="train-detector"):
        open_detector(own_run)
    sha = open_engine(own_run).weights_sha256
    write_detector_card(card(weights_sha256=sha), own_run)
    assert is_detector(own_run)
    assert open_detector(own_run).card.growth == 1.0


def test_a_card_of_other_weights_or_a_damaged_one_is_refused(own_run) -> None:
    write_detector_card(card(), own_run)
    with pytest.raises(CheckpointError, match="other weights"):
        open_detector(own_run)
    path = own_run / "detector.json"
    path.write_text(json.dumps({"growth": "large"}))
    with pytest.raises(CheckpointError, match="weights_sha256"):
        open_detector(own_run)


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        open_detector(tmp_path / "nowhere")
