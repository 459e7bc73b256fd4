import numpy as np
import openslide
import pytest
from PIL import Image

from glomerulab.errors import SlideError
from glomerulab.slides.sources import ImageSource, OpenSlideSource, detect_vendor


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
def test_the_error_of_openslide_is_a_slide_error_with_its_reason(real_data):
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
def test_label_and_macro_are_associated_images(real_data):
    source = OpenSlideSource(real_data / "slides" / "CMU-1-Small-Region.svs")
    assert source.associated_images == ("label", "macro", "thumbnail")
    source.close()


def test_an_image_is_a_slide_of_one_level(tmp_path, rng):
    pixels = rng.integers(0, 256, (30, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = ImageSource(tmp_path / "a.png")
    assert source.level_dimensions == ((50, 30),)
    assert source.level_downsamples == (1.0,)
    read = np.asarray(source.read(0, (-5, 10), (10, 10)))
    assert (read[:, :5, 3] == 0).all()
    np.testing.assert_array_equal(read[:, 5:, :3], pixels[10:20, :5])
    with pytest.raises(ValueError, match="only level 0"):
        source.read(1, (0, 0), (1, 1))
    source.close()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_opens(tmp_path, mode):
    name = "a.tif" if mode in {"CMYK", "I;16"} else "a.png"
    Image.new(mode, (20, 10)).save(tmp_path / name)
    assert ImageSource(tmp_path / name).level_dimensions == ((20, 10),)


def test_a_damaged_image_is_a_slide_error(tmp_path, rng):
    path = tmp_path / "cut.png"
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SlideError, match="cannot be read") as caught:
        ImageSource(path)
    assert caught.value.where == str(path)
