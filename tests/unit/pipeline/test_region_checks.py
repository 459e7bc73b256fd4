import numpy as np
import pytest

from glomerulab.errors import RegionError
from glomerulab.geometry import Box, Region
from glomerulab.images import write_image
from glomerulab.pipeline.region_checks import regions_on_glass, size_notes
from glomerulab.slides.regions.features import RegionOptions
from glomerulab.slides.slide import open_slide


@pytest.fixture
def slide(tmp_path):
    """A slide of glass with one square of tissue at 100, 100."""
    pixels = np.full((400, 600, 3), 240, dtype=np.uint8)
    pixels[100:200, 100:200] = (190, 120, 170)
    write_image(pixels, tmp_path / "s.png")
    with open_slide(tmp_path / "s.png", mpp_override=1.0) as opened:
        yield opened


def box(name, x, y, side=80):
    return Region.from_box(name, Box(x, y, side, side))


TISSUE, GLASS, OUTSIDE = box("tissue", 110, 110), box("glass", 400, 300), box("out", 900, 900)


def test_single_regions_on_glass_are_listed(slide):
    assert regions_on_glass(slide, [TISSUE, GLASS, OUTSIDE], RegionOptions()) == [GLASS]


def test_a_region_of_pale_tissue_is_not_on_glass(tmp_path):
    pixels = np.full((400, 600, 3), 240, dtype=np.uint8)
    pixels[100:200, 100:200] = (228, 212, 224)
    write_image(pixels, tmp_path / "pale.png")
    with open_slide(tmp_path / "pale.png", mpp_override=1.0) as opened:
        assert regions_on_glass(opened, [TISSUE], RegionOptions()) == []


def test_an_image_of_tissue_alone_has_no_glass(tmp_path):
    write_image(np.full((400, 600, 3), (220, 170, 200), np.uint8), tmp_path / "t.png")
    with open_slide(tmp_path / "t.png", mpp_override=1.0) as opened:
        assert regions_on_glass(opened, [TISSUE, GLASS], RegionOptions()) == []


def test_regions_that_all_lie_on_glass_are_an_error_with_the_way_out(slide):
    with pytest.raises(RegionError, match="--drawn-mpp"):
        regions_on_glass(slide, [GLASS, box("glass 2", 300, 20)], RegionOptions())
    assert regions_on_glass(slide, [GLASS], RegionOptions()) == [GLASS]


def test_bounds_that_move_all_regions_to_glass_are_named(slide, monkeypatch):
    monkeypatch.setattr(type(slide), "bounds_offset", property(lambda _: (300.0, 0.0)))
    with pytest.raises(RegionError, match="give --ignore-bounds"):
        regions_on_glass(slide, [GLASS], RegionOptions())
    with pytest.raises(RegionError, match="leave out --ignore-bounds"):
        regions_on_glass(slide, [GLASS], RegionOptions(ignore_bounds=True))


def test_regions_of_another_size_than_the_others_are_named_by_slide():
    widths = {("s1", f"g{n}"): 150.0 + n for n in range(6)}
    assert size_notes(widths) == {}
    notes = size_notes(widths | {("s2", "dot"): 5.0, ("s2", "tissue"): 4000.0})
    assert list(notes) == ["s2"]
    assert "dot (5 µm), tissue (4000 µm)" in notes["s2"].en
