import numpy as np
import openslide
import pytest

from glomerulab.errors import SlideError
from glomerulab.slides.openslide_source import OpenSlideSource, detect_vendor


def test_levels_and_properties_are_openslides(make_slide):
    source = OpenSlideSource(make_slide())
    assert source.level_dimensions[0] == (1200, 900)
    assert source.level_downsamples[:2] == (1.0, 2.0)
    assert source.properties["openslide.vendor"] == "generic-tiff"
    assert source.associated_images == ()
    assert source.read(0, (-10, 0), (20, 5)).getpixel((0, 0))[3] == 0
    source.close()


def test_an_unknown_format_has_no_vendor(tmp_path):
    (tmp_path / "a.svs").write_bytes(b"junk")
    assert detect_vendor(tmp_path / "a.svs") is None


@pytest.mark.real
def test_what_openslide_refuses_is_a_slide_error_with_its_reason(real_data):
    path = real_data / "slides" / "openslide_unopenable.tiff"
    with pytest.raises(SlideError, match="compression") as caught:
        OpenSlideSource(path)
    assert caught.value.where == str(path)


@pytest.mark.real
def test_pixels_of_every_level_are_openslides(real_data):
    path = real_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    own, source = openslide.OpenSlide(path), OpenSlideSource(path)
    assert source.level_dimensions == own.level_dimensions
    for level in range(own.level_count):
        expected = own.read_region((1001, 777), level, (123, 99))
        read = source.read(level, (1001, 777), (123, 99))
        np.testing.assert_array_equal(np.asarray(read), np.asarray(expected))
    source.close()


@pytest.mark.real
def test_label_and_macro_of_a_scanner_are_told(real_data):
    source = OpenSlideSource(real_data / "slides" / "CMU-1-Small-Region.svs")
    assert source.associated_images == ("label", "macro", "thumbnail")
    source.close()
