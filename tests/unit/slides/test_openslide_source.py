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
