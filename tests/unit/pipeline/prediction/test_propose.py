from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.inference.detector import Detector
from glomerulab.pipeline.prediction.propose import propose_regions
from glomerulab.slides.regions.files import read_regions
from tests.support.detecting import ByColour, detector_card, disc_slide


def entries(folder) -> list[SlideEntry]:
    disc_slide(folder / "a.tif", [(400, 300, 90)])
    disc_slide(folder / "b.tif", [])
    (folder / "c.tif").write_bytes(b"broken")
    return [SlideEntry(folder / f"{n}.tif", f"slide {n}", "p", "HE") for n in "abc"]


def test_every_readable_slide_gets_a_file_and_empty_ones_are_told(tmp_path) -> None:
    found = propose_regions(
        entries(tmp_path), Detector(ByColour(), detector_card(), "d"), tmp_path / "out"
    )
    assert list(found.scores) == [("slide a", "slide a proposal 1")]
    assert found.empty_slides == ["slide b"]
    assert [one.slide for one in found.failures] == ["slide c"]
    (nothing,) = [note for note in found.notes if "nothing on slide slide b" in note.en]
    assert nothing.case == "p"
    assert any("no slide stained HE" in note.en for note in found.notes)
    names = sorted(path.name for path in found.folder.iterdir())
    assert names == ["a.tif.geojson", "b.tif.geojson"]
    assert len(read_regions(found.folder / "a.tif.geojson")) == 1


def test_a_second_run_looks_at_nothing_again_unless_the_detector_changed(tmp_path) -> None:
    slides, engine = entries(tmp_path), ByColour()
    first = propose_regions(slides, Detector(engine, detector_card(), "d"), tmp_path / "out")
    n_images = engine.n_images
    again = propose_regions(slides, Detector(engine, detector_card(), "d"), tmp_path / "out")
    assert engine.n_images == n_images
    assert again.empty_slides == first.empty_slides
    propose_regions(
        slides, Detector(engine, detector_card(score_threshold=0.4), "d"), tmp_path / "out"
    )
    assert engine.n_images == 2 * n_images
