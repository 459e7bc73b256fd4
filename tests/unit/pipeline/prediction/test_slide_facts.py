from pathlib import Path

from glomerulab.cohort.slides_table import SlideEntry
from glomerulab.geometry import Box, Region
from glomerulab.images import image_size
from glomerulab.pipeline.prediction.slide_facts import read_slide_facts
from glomerulab.slides.regions.files import write_regions


def test_size_map_and_outlines_of_a_slide(make_slide, tmp_path: Path) -> None:
    slide = make_slide("biopsy.tiff", size=(2400, 1200))
    region = Region.from_box("g1", Box(300, 200, 150, 140))
    write_regions([region], tmp_path / "r.geojson")
    entry = SlideEntry(slide, "biopsy", "p1", "PAS")
    read = read_slide_facts(
        [entry], tmp_path / "r.geojson", out=tmp_path, mpp_override=None, stain=None
    )
    facts = read.facts[0]
    assert (facts.width, facts.height, facts.mpp, facts.stain) == (2400, 1200, 0.5, "PAS")
    assert facts.file_name == "biopsy.tiff"
    assert image_size(tmp_path / facts.map_path) == (1600, 800)
    assert read.outlines["biopsy", "g1"] == region.polygon


def test_a_slide_that_cannot_be_opened_is_left_out(make_slide, tmp_path: Path) -> None:
    slide = make_slide("good.tiff")
    (tmp_path / "bad.tiff").write_bytes(b"nothing")
    write_regions([Region.from_box("g1", Box(9, 9, 9, 9))], tmp_path / "r.geojson")
    entries = [SlideEntry(tmp_path / "bad.tiff", "bad"), SlideEntry(slide, "good")]
    read = read_slide_facts(
        entries, tmp_path / "r.geojson", out=tmp_path, mpp_override=None, stain="HE"
    )
    assert [one.slide_id for one in read.facts] == ["good"]
    assert read.facts[0].stain == "HE"
