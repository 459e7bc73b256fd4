"""Glomeruli that a segmenter outlines become regions."""

import pytest
from shapely import Polygon

from glomerulab.errors import CheckpointError
from glomerulab.geometry import Region
from glomerulab.inference.detector import Detector, open_detector
from glomerulab.inference.segmenter import open_segmenter
from glomerulab.runtime.sealing import write_seal
from glomerulab.slides.pyramid import write_pyramid
from glomerulab.slides.regions.proposals import is_proposal
from glomerulab.slides.slide import open_slide
from tests.support.segmenters import ByColour, disc_pixels, disc_slide, write_segmenter


def test_discs_are_proposed_with_their_outlines(tmp_path) -> None:
    discs = [(1100, 600, 110), (400, 300, 90), (800, 300, 60)]
    truth = sorted(disc_slide(tmp_path / "s1.tif", discs, mpp=0.5), key=lambda one: one.box().y)
    with open_slide(tmp_path / "s1.tif") as slide:
        found = Detector(ByColour(), "dots").propose(slide, "s1", tmp_path)
    assert [one.region.region_id for one in found.proposals] == [
        f"s1 proposal {n}" for n in (1, 2, 3)
    ]
    for one, other in zip(found.proposals, truth, strict=True):
        mine, true = Polygon(one.region.polygon), Polygon(other.polygon)
        assert mine.intersection(true).area > 0.95 * mine.union(true).area
        assert is_proposal(one.region)
        assert one.score > 0.9
    assert not list(tmp_path.glob(".*"))


def test_holes_of_an_outline_are_kept(tmp_path) -> None:
    pixels = disc_pixels([(400, 300, 100)])
    pixels[280:320, 380:420] = (225, 170, 200)
    write_pyramid(pixels, tmp_path / "s1.tif", mpp=1.0, compression="deflate")
    with open_slide(tmp_path / "s1.tif") as slide:
        (one,) = Detector(ByColour(), "dots").propose(slide, "s1", tmp_path).proposals
    (hole,) = one.region.holes
    assert Region("hole", hole).box().width == pytest.approx(40, abs=2)


def test_notes_on_a_slide_go_with_its_proposals(tmp_path) -> None:
    disc_slide(tmp_path / "s1.tif", [(400, 300, 90)], mpp=1.5)
    with open_slide(tmp_path / "s1.tif") as slide:
        found = Detector(ByColour(), "dots").propose(slide, "s1", tmp_path)
    assert any("enlarged" in note.en for note in found.notes)


def test_a_folder_of_another_project_is_a_detector_if_it_knows_glomeruli(tmp_path) -> None:
    detector = open_detector(write_segmenter(tmp_path / "dots"))
    assert detector.facts.run == "dots"
    assert len(detector.facts.weights_sha256) == 64
    with pytest.raises(CheckpointError, match="cortex, tubule"):
        open_detector(write_segmenter(tmp_path / "other", structures=("cortex", "tubule")))


def test_a_classifier_and_a_detector_of_an_earlier_version_are_refused(own_run) -> None:
    with pytest.raises(CheckpointError, match="classifier"):
        open_detector(own_run)
    (own_run / "detector.json").write_text("{}")
    write_seal(own_run)
    for open_model in (open_detector, open_segmenter):
        with pytest.raises(CheckpointError, match=r"earlier version.*train-segmenter"):
            open_model(own_run)


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        open_detector(tmp_path / "nowhere")


def test_a_mistyped_glomerulus_is_told(tmp_path) -> None:
    segmenter = write_segmenter(tmp_path / "net", structures=("cortex", "glomerulis"))
    with pytest.raises(CheckpointError, match="did you mean 'glomerulis'"):
        open_detector(segmenter)
